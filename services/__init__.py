"""What is under test: one protocol, several ways to serve it. The only code in a server's image."""
