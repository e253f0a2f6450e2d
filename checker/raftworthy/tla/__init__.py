"""The specification as TLA+, so that anybody can check it, and us, with TLC.

`expressions` is the back end's table from operation to text, `module` writes a module and its configuration,
`tlc` runs TLC on them.
"""
