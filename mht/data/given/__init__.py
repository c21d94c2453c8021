"""Training data as library users give it: token ids, texts, chats, tables."""
