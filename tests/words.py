"""Words that a shell, or who joins words to a line, would make something else of."""

HOSTILE = (
    *("a b", "", "\t", "a\nb", "ü→😀", "it's", '"', "\\", "!1", "*"),
    *("$(id)", "`id`", "; touch x", "-n", "--"),
)
