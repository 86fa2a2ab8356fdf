//! Whole streams against what the store says of its changes, with verbs and writes drawn by chance.
