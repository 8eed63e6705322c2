//! Keeps blobs by digest, layers and their forms, results by cache key.
