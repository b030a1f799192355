"""Text of any size as token files that are memory-mapped.

A prepared folder holds, for train, validation and test, files `SPLIT-00000.bin`: raw little-endian
numbers one after another, without a header (as nanoGPT's and Megatron-LM's are), and `index.json`
(`bench.shards.index`) with their type, their lengths, their hashes and where they come from. What
`train` has are symbols: bytes, or those of a tokenizer. What is scored are bytes always, since the
score is bits per byte whatever a model reads.

Why not a library: litdata (0.2.76) and mosaicml-streaming (0.13.0) read from object stores, and
bring boto3, obstore and more; the order in which they show windows depends on chunks and on how
many workers there are, and their windows are cut when a data set is written. Here the order is a
function of seed and position alone, so that every family sees the same windows wherever it runs,
and one folder serves every context. What remains of such a library is `numpy` over `mmap`.

No file here loads torch: preparing takes processes that are small.
"""
