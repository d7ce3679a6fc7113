# ===== CLIENT SIDE (Same as Before) =====
import requests
from requests.auth import HTTPBasicAuth

class ScalableBankClient:
    def __init__(self, base_url="http://api.example.com"):
        self.base_url = base_url
        self.session = requests.Session()
    
    def login(self, email, password):
        """Login and establish session"""
        response = self.session.post(
            f"{self.base_url}/api/login",
            json={"email": email, "password": password}
        )
        return response.json()
    
    def get_user(self, user_id):
        """Get user info (requires authentication)"""
        response = self.session.get(f"{self.base_url}/api/users/{user_id}")
        return response.json()
    
    def transfer(self, from_user, to_user, amount):
        """Transfer money securely"""
        response = self.session.post(
            f"{self.base_url}/api/transfer",
            json={
                "from": from_user,
                "to": to_user,
                "amount": amount
            }
        )
        return response.json()

# Usage
client = ScalableBankClient()

# Login
client.login("alice@example.com", "password123")

# Get user (now authenticated)
user = client.get_user(1)
print(user)

# Transfer (securely with authentication & transactions)
result = client.transfer(1, 2, 100)
print(result)

# Benefits of scalable approach:
# âœ… Multiple servers (one fails, others handle traffic)
# âœ… Persistent database (data survives restarts)
# âœ… Authentication (secure, only authorized users can transfer)
# âœ… Transaction support (money transfer all-or-nothing)
# âœ… Scaling (can handle 1000s of concurrent users)
# âœ… Any server can handle any request (stateless)
