"""`python -m tests.fuzz [TARGET ...] --seconds N --seed S`: see docs/testing.md."""

import argparse
import secrets
import sys
import traceback

from tests.fuzz.runner import FuzzError, fuzz, load, target_names


def main() -> int:
    """Run each target for its share of the time; 1 when one of them found a fault."""
    args = _arguments()
    print(f"seed {args.seed}", flush=True)
    failed = False
    for target in args.targets:
        try:
            outcome = fuzz(
                target, args.seed, args.seconds / len(args.targets), first=args.first, last=args.last
            )
        except FuzzError as error:
            failed = True
            traceback.print_exception(error.__cause__)
            print(f"FAILED {error}", flush=True)
        else:
            print(
                f"{target}: {outcome.iterations} iterations in {outcome.seconds:.1f} s, {outcome.rate:.0f} a second",
                flush=True,
            )
    return 1 if failed else 0


def _arguments() -> argparse.Namespace:
    names = target_names()
    listed = "\n".join(f"  {name}: {(load(name).__doc__ or '').splitlines()[0]}" for name in names)
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz",
        description=f"Give mutated input to parts of l2overlay and look for faults.\n\ntargets:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="default: all")
    parser.add_argument("--seconds", type=float, default=60.0, help="for all targets together; default 60")
    parser.add_argument("--seed", type=int, help="default: a new one")
    parser.add_argument("--first", type=int, default=0, help="number of the first iteration; default 0")
    parser.add_argument("--last", type=int, help="number of the last iteration, even if the time is not over")
    args = parser.parse_args()
    unknown = [name for name in args.targets if name not in names]
    if unknown:
        parser.error(f"no target {unknown[0]!r}; there are {', '.join(names)}")
    args.targets = args.targets or names
    args.seed = secrets.randbits(32) if args.seed is None else args.seed
    if args.last is not None:
        args.seconds = float("inf")
    return args


if __name__ == "__main__":
    sys.exit(main())
