"""Histories of clients, without servers: is there one order of the operations that explains every answer?"""
