"""Programs in processes of their own: a world model that a user wrote can fail without taking anything else along.

The process is a fence against faults, not against malice: a program runs with the rights of the service.
"""
