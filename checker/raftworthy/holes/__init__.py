"""Traces with holes: is there a behaviour of the specification that explains the lines that are there?"""
