"""The public API: a bridge opened by a thread, an asyncio program or a trio program, and the snapshots it gives."""
