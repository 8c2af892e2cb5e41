"""The web console: pages in a browser about a running service, for people.

It runs on a thread and an event loop of its own in the service's process, and asks the service by gRPC only, with the
credential that a person signed in with. So what a person sees and may do is for the service to say: the console has
no rights. Nothing here imports the service, the store or the numerics.
"""
