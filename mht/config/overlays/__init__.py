"""Settings laid over settings: experiments that say only what differs."""
