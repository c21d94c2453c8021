"""From raw rows to tokenised examples: fetching, cleaning, splitting, tokenising, collating."""
