"""The error for bad input of a user."""


class StudyError(ValueError):
    """Bad input. Its message is one line that names the file or key and the remedy."""


class Busy(StudyError):
    """Another process is at the same work."""


class NoNumber(StudyError):
    """The loss of a training is no number any more."""


class DataMissing(StudyError):
    """A data set does not lie where it is looked for."""
