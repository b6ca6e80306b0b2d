"""The plans of the queue: the same names, taking names, and refused at submission when wrong.

queueserver checks parameters against these annotations before a plan is queued. Plain type hints
would let unknown names and wrong kinds pass; and the keys of a dict arrive as strings.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from bluesky_queueserver import parameter_annotation_decorator

__all__ = ["queue_plans"]

Plan = Callable[..., Iterator[Any]]
# Infinity is outside; NaN and what else is no position is refused by our HTTP door and by the plan.
FINITE = {"min": -1e300, "max": 1e300}


def queue_plans(names: Mapping[str, Any]) -> dict[str, Plan]:
    """The queue's plans, by name.

    :param names: the namespace of the profile, devices included.
    """
    motors, detectors = _kinds(names)
    kinds = {"Motors": motors, "Detectors": detectors}
    plans = {
        name: _adaptive(names[name], names, kinds) for name in ("adaptive_plan", "adaptive_scan")
    }
    plans["focus_scan"] = _focus(names["focus_scan"], names, motors)
    for name, parameters in _usual(kinds).items():
        plans[name] = _annotated(names[name], parameters)
    return plans


def _kinds(names: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    devices = {n: d for n, d in names.items() if hasattr(d, "describe") and hasattr(d, "read")}
    motors = [n for n, d in devices.items() if hasattr(d, "set") and hasattr(d, "position")]
    return motors, [n for n in devices if n not in motors]


def _usual(kinds: Mapping[str, list[str]]) -> dict[str, dict[str, Any]]:
    detectors = _typed("typing.List[Detectors]", kinds, "Detectors")
    moves = _typed("typing.Union[Motors, float, int, bool]", kinds, "Motors") | FINITE
    lists = _typed("typing.Union[Motors, typing.List[float]]", kinds, "Motors") | FINITE
    stepped = {"detectors": detectors, "args": moves}
    return {
        "count": {"detectors": detectors},
        "scan": stepped,
        "rel_scan": stepped,
        "grid_scan": stepped,
        "rel_grid_scan": stepped,
        "list_scan": {"detectors": detectors, "args": lists},
        "rel_list_scan": {"detectors": detectors, "args": lists},
        "fly": {"flyers": _typed("typing.List[Flyers]", {"Flyers": ["camera"]}, "Flyers")},
        "mv": {"args": moves},
        "mvr": {"args": moves},
    }


def _typed(annotation: str, kinds: Mapping[str, list[str]], *used: str) -> dict[str, Any]:
    return {
        "annotation": annotation,
        "devices": {kind: list(kinds[kind]) for kind in used},
        "convert_device_names": True,
    }


def _annotated(plan: Plan, parameters: Mapping[str, Any]) -> Plan:
    @functools.wraps(plan)
    def queued(*args: Any, **kwargs: Any) -> Iterator[Any]:
        return (yield from plan(*args, **kwargs))

    return _with_annotation(queued, {"parameters": dict(parameters)})


def _with_annotation(plan: Plan, annotation: Mapping[str, Any]) -> Plan:
    annotated: Plan = parameter_annotation_decorator(dict(annotation))(plan)
    return annotated


def _adaptive(plan: Plan, names: Mapping[str, Any], kinds: Mapping[str, list[str]]) -> Plan:
    """An adaptive plan whose devices may be names, on the profile's own road."""

    def queued(
        dets: Any,
        first_point: Any,
        *,
        md: Any = None,
        recommender: Any = None,
        bounds: Any = None,
        timeout: Any = 60.0,
        on_timeout: Any = "fail",
        resume: Any = None,
    ) -> Iterator[Any]:
        return (
            yield from plan(
                _devices(names, dets),
                _by_device(names, first_point),
                to_recommender=names["to_recommender"],
                from_recommender=names["from_recommender"],
                md=md,
                recommender=recommender,
                bounds=None if bounds is None else _by_device(names, bounds),
                timeout=timeout,
                on_timeout=on_timeout,
                resume=resume,
            )
        )

    queued.__name__ = queued.__qualname__ = plan.__name__
    return _with_annotation(queued, _adaptive_annotation(kinds))


def _adaptive_annotation(kinds: Mapping[str, list[str]]) -> dict[str, Any]:
    of_motors = "typing.Dict[Motors, {}]"
    bounds = f"typing.Optional[{of_motors.format('typing.List[float]')}]"
    anything = "typing.Dict[str, typing.Any]"
    parameters = {
        "dets": _typed("typing.List[Detectors]", kinds, "Detectors"),
        "first_point": _typed(of_motors.format("float"), kinds, "Motors") | FINITE,
        "md": {"annotation": f"typing.Optional[{anything}]"},
        "recommender": {"annotation": f"typing.Union[str, {anything}, None]"},
        "bounds": _typed(bounds, kinds, "Motors") | FINITE,
        "timeout": {"annotation": "float", "min": 0.0, "max": 86400.0},
        "on_timeout": {"annotation": "Ways", "enums": {"Ways": ["fail", "stop", "pause"]}},
        "resume": {"annotation": "typing.Optional[str]"},
    }
    return {"description": "Measure where a recommender says.", "parameters": parameters}


def _focus(plan: Plan, names: Mapping[str, Any], motors: list[str]) -> Plan:
    """The focus scan, on the profile's own road."""

    def queued(
        camera: Any,
        motor: Any,
        low: Any,
        high: Any,
        *,
        points: Any = 5,
        tolerance: Any = 0.05,
        target: Any = None,
        md: Any = None,
    ) -> Iterator[Any]:
        return (
            yield from plan(
                camera,
                motor,
                low,
                high,
                to_recommender=names["to_recommender"],
                from_recommender=names["from_recommender"],
                points=points,
                tolerance=tolerance,
                target=target,
                md=md,
            )
        )

    queued.__name__ = queued.__qualname__ = plan.__name__
    return _with_annotation(queued, _focus_annotation(motors))


def _focus_annotation(motors: list[str]) -> dict[str, Any]:
    position = {"annotation": "float", **FINITE}
    parameters = {
        "camera": _typed("Cameras", {"Cameras": ["camera"]}, "Cameras"),
        "motor": _typed("Motors", {"Motors": motors}, "Motors"),
        "low": position,
        "high": position,
        "points": {"annotation": "int", "min": 3, "max": 100},
        "tolerance": {"annotation": "float", "min": 0.0, "max": FINITE["max"]},
        "target": {"annotation": "typing.Optional[str]"},
        "md": {"annotation": "typing.Optional[typing.Dict[str, typing.Any]]"},
    }
    text = "Move the motor to where the spot on the camera is narrowest."
    return {"description": text, "parameters": parameters}


def _device(names: Mapping[str, Any], named: Any) -> Any:
    return names[named] if isinstance(named, str) else named


def _devices(names: Mapping[str, Any], named: Sequence[Any]) -> list[Any]:
    return [_device(names, device) for device in named]


def _by_device(names: Mapping[str, Any], values: Mapping[Any, Any]) -> dict[Any, Any]:
    return {_device(names, device): value for device, value in values.items()}
