"""Every mistake a user can mend is one kind of error, and a file's error names file and line."""

import inspect

from lexome.core import FormatError, LexomeError, errors


def test_all_errors_have_one_base():
    classes = [
        c for _, c in inspect.getmembers(errors, inspect.isclass) if c.__module__ == errors.__name__
    ]
    assert all(issubclass(each, LexomeError) for each in classes)


def test_a_format_error_names_file_and_line():
    error = FormatError("calls.vcf", "has no header. Expected ##fileformat.", line_1based=3)
    assert str(error) == "calls.vcf, line 3: has no header. Expected ##fileformat."
    assert (error.path, error.line_1based) == ("calls.vcf", 3)


def test_a_format_error_without_a_line_names_the_file():
    assert str(FormatError("x.bam", "is empty.")) == "x.bam: is empty."
