# ===== CLIENT SIDE =====
import requests

class BankClient:
    def __init__(self, base_url="http://localhost:5000"):
        self.base_url = base_url
    
    def get_user(self, user_id):
        """Get user info"""
        response = requests.get(f"{self.base_url}/api/users/{user_id}")
        return response.json()
    
    def create_user(self, name, email):
        """Create new user"""
        response = requests.post(
            f"{self.base_url}/api/users",
            json={"name": name, "email": email}
        )
        return response.json()
    
    def transfer(self, from_user, to_user, amount):
        """Transfer money"""
        response = requests.post(
            f"{self.base_url}/api/transfer",
            json={
                "from": from_user,
                "to": to_user,
                "amount": amount
            }
        )
        return response.json()

# Usage
client = BankClient()

# Get user
user = client.get_user(1)
print(user)  # {'name': 'Alice', 'email': 'alice@example.com', 'balance': 1000}

# Create user
new_user = client.create_user("Charlie", "charlie@example.com")
print(new_user)  # {'id': 3}

# Transfer money
result = client.transfer(1, 2, 100)
print(result)  # {'status': 'success'}

# Problems with this approach:
# âŒ Single server (crashes = app down)
# âŒ In-memory storage (data lost on restart)
# âŒ No authentication (anyone can transfer money!)
# âŒ No error handling (network failures, timeouts)
# âŒ No scaling (1000 concurrent users = crash)
