"""Other people's trainers, each in processes of its own."""
