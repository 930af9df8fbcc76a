"""Build XLM-RoBERTa from scratch: the helper package of the course, one module per idea.

The data flows down this list, and so do the imports::

    corpus → unigram → tokenizer → encoder → mlm → pretraining → checkpoints → heads → finetuning → plots → cli

Importing the package itself loads nothing heavy; each module is imported where it is used.
"""

__version__ = "0.1.0"
