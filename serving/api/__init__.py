"""gRPC: converts, asks the engine, converts back. No mathematics, no scheduling."""
