"""The forms in which people hold the data, one reader each: ``find(root)`` lists what lies there in that form."""

from refstudy.data.forms import box_lists, parquet, refer_files, referit_queries, triples

FORMS = (refer_files, parquet, box_lists, referit_queries, triples)
