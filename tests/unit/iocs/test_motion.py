import math

from hypothesis import given
from hypothesis import strategies as st

from bluesky_plugins.iocs import Calibration, Limits, Trajectory

positions = st.floats(-1e4, 1e4)
times = st.floats(0.0, 1e4)


@given(start=positions, target=positions, velocity=st.floats(0.01, 1e4), times=st.lists(times))
def test_motor_never_leaves_the_way_between_start_and_target(start, target, velocity, times):
    trajectory = Trajectory(start, target, velocity, began=0.0)
    low, high = min(start, target), max(start, target)
    assert all(low <= trajectory.position(now) <= high for now in times)


@given(start=positions, target=positions, velocity=st.floats(0.01, 1e4))
def test_motor_is_exactly_at_its_target_when_the_move_ends(start, target, velocity):
    trajectory = Trajectory(start, target, velocity, began=3.0)
    assert trajectory.position(trajectory.ends) == target


def test_move_takes_distance_over_velocity():
    assert Trajectory(1.0, 2.5, 50.0, began=10.0).ends == 10.03


def test_new_target_on_the_way_starts_where_the_motor_is():
    trajectory = Trajectory(0.0, 10.0, 1.0, began=0.0).retargeted(-4.0, now=3.0)
    assert (trajectory.position(3.0), trajectory.position(4.0)) == (3.0, 2.0)


@given(dial=positions, offset=positions, direction=st.sampled_from([-1, 1]))
def test_user_and_dial_position_are_each_others_inverse(dial, offset, direction):
    calibration = Calibration(offset, direction)
    assert math.isclose(calibration.dial(calibration.user(dial)), dial, abs_tol=1e-9)


@given(dial=positions, user=positions, direction=st.sampled_from([-1, 1]))
def test_position_set_here_is_the_user_position_of_the_dial(dial, user, direction):
    calibration = Calibration(0.0, direction).set_here(user, dial)
    assert math.isclose(calibration.user(dial), user, abs_tol=1e-9)


def test_limits_are_inside():
    limits = Limits(-1.0, 1.0)
    assert not limits.violation(-1.0)
    assert not limits.violation(1.0)
    assert limits.violation(1.0001)


def test_equal_zero_limits_are_no_limits():
    assert not Limits(0.0, 0.0).violation(1e6)


def test_position_that_is_no_number_violates_every_limit():
    assert Limits(0.0, 0.0).violation(math.nan)
    assert Limits(0.0, 0.0).violation(math.inf)


def test_user_limits_of_a_reversed_motor_stay_in_order():
    assert Limits(-1.0, 5.0).user(Calibration(0.0, -1)) == Limits(-5.0, 1.0)
