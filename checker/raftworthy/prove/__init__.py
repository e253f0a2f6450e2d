"""What Z3 says about the specification: proofs, bounded checks, and answers to questions."""

from raftworthy.explore.bounds import UnusableError

try:
    import z3  # noqa: F401
except ImportError as error:
    raise UnusableError("proving needs Z3; try: pip install 'raftworthy[prove]'") from error
