"""Catalogs: any feed in, products in Parquet shards out, with a quarantine for what could not be used.

A feed's way, in the order of the files:

feeds/       one format a file: delimited text, JSON lines, Parquet, Google Merchant XML, Shopify CSV
rows.py      Row, BadRow, the reason codes and the limits
mapping.py   which column of a feed is which part of a product
categories.py  the categories of one row, several where all are right
attributes.py  labels of attributes, read from cells and counted
pictures.py  the pictures of one row: bytes, files below a folder, addresses
reader.py    read_products: any feed → one product or one bad row for each record
source.py    what an ingest reads, a feed or a recipe's files, and its fingerprint
ingest.py    the recipe: read, quarantine, stage, split, publish; resumes after a kill
staging.py   the work of an unfinished ingest on disk
split.py     which product goes to train, validation or test; near.py says which titles are nearly equal
labelling.py  labels as sellers gave them become the catalog's, and the vocabulary
publish.py   the staged rows as the shards of a finished catalog
store.py     Catalog: an open catalog folder
describe.py  what a catalog holds
advice.py    what an ingest says beside its counts, and what to do about it
golden.py    frozen copies of a split
progress.py  how far a long job came
"""
