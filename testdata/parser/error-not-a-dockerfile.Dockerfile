{"name": "x", "scripts": {}}
