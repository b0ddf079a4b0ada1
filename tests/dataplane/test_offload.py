"""Templates: whatever passes the check can be made into a run of any bytes of its payload."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l2overlay.dataplane.offload import make_template, parse_template_untrusted, run_header, split_units
from l2overlay.errors import FrameError

from .reference_kernel import segments
from .super_frames import SuperFrame, super_frame, super_frames


def template_of(whole: SuperFrame) -> bytes:
    return make_template(whole.frame, 7)[0]


@given(super_frames())
def test_template_of_a_super_frame_is_read_as_it_was_made(whole: SuperFrame) -> None:
    raw, template = make_template(whole.frame, 7)
    assert parse_template_untrusted(raw) == template
    assert struct.unpack_from("<I", raw) == (7,)
    assert (template.header, template.total) == (whole.header, len(whole.payload))
    assert template.is_udp == whole.is_udp


@given(super_frames(), st.data())
def test_damaged_template_is_refused_or_good_for_any_run(whole: SuperFrame, data: st.DataObject) -> None:
    raw = bytearray(template_of(whole))
    for _ in range(data.draw(st.integers(0, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    raw = raw[: data.draw(st.just(len(raw)) | st.integers(0, len(raw)))]
    try:
        template = parse_template_untrusted(bytes(raw))
    except FrameError:
        return
    start = data.draw(st.integers(0, template.total - 1))
    length = data.draw(st.integers(1, template.total - start))
    header = run_header(template, start, length)
    assert len(header) == 10 + template.header_len


@given(st.binary(max_size=120))
def test_any_bytes_are_refused_as_a_template_or_read(raw: bytes) -> None:
    try:
        template = parse_template_untrusted(raw)
    except FrameError:
        return
    assert len(template.header) == template.header_len


@pytest.mark.parametrize("kind", ["tcp4", "tcp6", "udp4", "udp6"])
def test_template_cut_off_anywhere_is_refused(kind: str) -> None:
    raw = template_of(super_frame(kind, tags=1))
    for length in range(len(raw)):
        with pytest.raises(FrameError):
            parse_template_untrusted(raw[:length])


@given(super_frames(kinds=("udp4", "udp6")))
def test_units_taken_out_of_a_super_frame_are_its_segments(whole: SuperFrame) -> None:
    units = split_units(whole.frame, make_template(whole.frame, 1)[1])
    assert [segments([unit]) for unit in units] == [[segment] for segment in segments([whole.frame])]
