"""Build XLM-RoBERTa from scratch: the helper package of the course, one module per idea.

The data flows down this list, and so do the imports::

    corpus → lattice → unigram → sources → tokenizer → encoder → mlm → checkpoints → heads → finetuning → plots → cli

Beside `unigram` stand its training, readable and fast, and SentencePiece's file format; beside `sources`, the format of
the pip checkpoint; beside `finetuning`, its results.

Importing the package itself loads nothing heavy; each module is imported where it is used.
"""

__version__ = "0.1.0"
