"""Catalogs: any feed in, products in Parquet shards out, with a quarantine for what could not be used.

rows.py      Row, BadRow, the reason codes and the limits
feeds/       one format a file: delimited text, JSON lines, Parquet, Google Merchant XML, Shopify CSV
mapping.py   which column of a feed is which part of a product
reader.py    read_products: any feed → one product or one bad row for each record
"""
