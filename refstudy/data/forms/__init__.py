"""The forms in which people hold the data, a reader for each: ``find(root)`` lists what lies there in that form."""

from refstudy.data.forms import box_lists, parquet, refer_files, triples

FORMS = (refer_files, parquet, box_lists, triples)
