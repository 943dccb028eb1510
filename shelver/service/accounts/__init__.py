"""Accounts: who people and machines are, how they sign in, what they may do."""
