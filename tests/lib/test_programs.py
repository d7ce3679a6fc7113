"""Prints the test programs of a build: folder of the package, program, source file; apart by tabs, a line each.

usage: test_programs.py FILE WANTED [UNWANTED]: what cargo wrote with --message-format=json, and patterns for the source file.
"""

import json
import os
import re
import sys

messages, wanted = sys.argv[1], re.compile(sys.argv[2])
unwanted = re.compile(sys.argv[3]) if len(sys.argv) > 3 else None
with open(messages, encoding="utf-8") as lines:
    for line in lines:
        message = json.loads(line)
        if not message.get("executable") or not message["profile"]["test"]:
            continue
        source = message["target"]["src_path"]
        if wanted.search(source) and not (unwanted and unwanted.search(source)):
            print(os.path.dirname(message["manifest_path"]), message["executable"], source, sep="\t")
