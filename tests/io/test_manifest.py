"""A manifest is checked as a whole: every fault of every line."""

from __future__ import annotations

import dataclasses
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nigradat.errors import CohortError, ManifestError
from nigradat.io.manifest import (
    HYPERINTENSITY,
    Participant,
    participant_faults,
    read_manifest,
    read_participants,
    write_participants,
)

NEEDED = ("participant_id", "right", "left", "sbr_right", "sbr_left")


@pytest.fixture
def folder(tmp_path):
    for i in range(1, 7):
        for side in ("right", "left"):
            (tmp_path / f"s{i}_{side}.nii.gz").touch()
    (tmp_path / "m.mat").touch()
    (tmp_path / "n.mat").touch()
    return tmp_path


def line(i, **changes):
    cells = dict(zip(NEEDED, (f"sub-{i}", f"s{i}_right.nii.gz", f"s{i}_left.nii.gz", "2.5", "1.25"), strict=True))
    return cells | changes


def write(folder, lines, columns=None, text=None):
    path = folder / "manifest.tsv"
    columns = columns or list(dict.fromkeys(key for cells in lines for key in cells))
    rows = [columns, *([cells.get(c, "n/a") for c in columns] for cells in lines)]
    path.write_text(text if text is not None else "".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
    return path


def faults(path, **options):
    with pytest.raises(ManifestError) as caught:
        read_manifest(path, **options)
    assert all(fault in str(caught.value) for fault in caught.value.faults)
    return caught.value.faults


def test_every_column_arrives(folder):
    everything = line(1) | {
        "session_id": "ses-1",
        "age": "63.5",
        "sex": "F",
        "diagnosis": "Parkinson's disease",
        "scanner": "Ingenia CX",
        "mri_spect_days": "-3",
        "tracer": "123I-FP-CIT",
        "spect_device": "Trionix XLT",
        "spect_software": "DATquant",
        "hyperintensity_right": "absent",
        "hyperintensity_left": "unsure",
    }
    first, second = read_manifest(write(folder, [everything, line(2)]))
    assert first.participant == Participant(
        "sub-1", "ses-1", 2.5, 1.25, 63.5, "F", "Parkinson's disease", "Ingenia CX", -3.0, "123I-FP-CIT", "Trionix XLT",
        "DATquant", "absent", "unsure",
    )  # fmt: skip
    assert (first.right, first.left, first.line) == (folder / "s1_right.nii.gz", folder / "s1_left.nii.gz", 2)
    assert second.participant == Participant("sub-2", sbr_right=2.5, sbr_left=1.25)
    assert second.line == 3


def test_a_spect_stands_in_for_labels(folder):
    (folder / "spect.dcm").touch()
    unlabelled = {"sbr_right": "n/a", "sbr_left": "n/a"}
    rows = read_manifest(write(folder, [line(1, **unlabelled, spect="spect.dcm"), line(2)]))
    assert [row.spect for row in rows] == [folder / "spect.dcm", None]
    assert [row.participant.has_sbr for row in rows] == [False, True]
    lines = [
        line(1, **unlabelled, spect="gone.dcm"),
        line(2, **unlabelled, spect="n/a"),
        line(3, spect="spect.dcm"),
        line(4, spect="spect.dcm"),
        line(3, right="s5_right.nii.gz", left="s5_left.nii.gz", session_id="ses-2", spect="spect.dcm"),
        line(6, spect=""),
    ]
    assert faults(write(folder, lines, columns=[*NEEDED, "session_id", "spect"])) == (
        "line 2: spect 'gone.dcm' does not exist",
        "line 3: no SBR: both sides are n/a, but labels are needed here",
        "line 5: the SPECT spect.dcm is already that of line 4, of another patient",
        "line 7: spect is empty (write n/a for what is missing)",
    )
    bare = [{k: v for k, v in line(1, spect="spect.dcm").items() if not k.startswith("sbr")}]
    assert read_manifest(write(folder, bare))[0].spect == folder / "spect.dcm"


def test_a_table_from_before_the_later_columns_is_whole(tmp_path):
    plain = Participant("sub-1", sbr_right=1.0, sbr_left=1.0)
    told = dataclasses.replace(plain, spect_reconstruction="OSEM", sbr_method="southampton")
    for participant, there in ((plain, False), (told, True)):
        write_participants(tmp_path / "p.tsv", [participant])
        assert ("sbr_method" in (tmp_path / "p.tsv").read_text()) is there
        assert read_participants(tmp_path / "p.tsv") == (participant,)


def test_labels_are_needed_only_where_asked(folder):
    path = write(folder, [{k: v for k, v in line(1).items() if not k.startswith("sbr")}])
    assert faults(path) == ("line 1: the column 'sbr_right' is missing", "line 1: the column 'sbr_left' is missing")
    (row,) = read_manifest(path, require_labels=False)
    assert not row.participant.has_sbr
    path = write(folder, [line(1, sbr_right="n/a", sbr_left="n/a")])
    assert faults(path) == ("line 2: no SBR: both sides are n/a, but labels are needed here",)
    assert len(read_manifest(path, require_labels=False)) == 1


def test_every_fault_of_every_line_is_listed_at_once(folder):
    path = write(
        folder,
        [
            line(1, right="gone.nii.gz", sbr_right="high", age="-4"),
            line(2),
            line(3, sbr_left="n/a", sex="male"),
            line(4, sbr_right="-0.5", hyperintensity_left="maybe", left="s4_left.png"),
            line(2, right="s5_right.nii.gz", left="s5_left.nii.gz"),
            line(6, sbr_right="1,5", sbr_left="nan", tracer="NA", age="1e999"),
        ],
        columns=[*NEEDED, "age", "sex", "hyperintensity_left", "tracer"],
    )
    assert faults(path) == (
        "line 2: sbr_right 'high' is no number",
        "line 2: age -4 is negative",
        "line 2: right 'gone.nii.gz' does not exist",
        "line 4: SBR of only one side (give both, or n/a for both)",
        "line 4: sex 'male' is none of M, F, O, n/a",
        "line 5: sbr_right -0.5 is negative",
        "line 5: hyperintensity_left 'maybe' is none of present, absent, unsure, n/a",
        "line 5: left 's4_left.png' is none of .nii, .nii.gz, .mat",
        "line 6: participant sub-2, session n/a stands already in line 3",
        "line 7: sbr_right '1,5' is no number (the decimal mark is a point)",
        "line 7: sbr_left is 'nan' (write n/a for what is missing)",
        "line 7: tracer is 'NA' (write n/a for what is missing)",
        "line 7: age inf is no finite number",
    )


def test_a_line_with_another_number_of_fields_is_a_fault(folder):
    header = "\t".join(NEEDED)
    text = f"{header}\nsub-1\ts1_right.nii.gz\ts1_left.nii.gz\t2.5\nsub-2\ta\tb\t1\t2\t3\n"
    assert faults(write(folder, [], text=text)) == (
        "line 2: 4 fields, but the header has 5",
        "line 3: 6 fields, but the header has 5",
    )


@pytest.mark.parametrize("number", ["1_000", "0x10", "infinity", "١", "1.", ".5", "2e0"])
def test_numbers_are_written_plainly(folder, number):
    path = write(folder, [line(1, age=number)])
    if number in ("1.", ".5", "2e0"):
        assert read_manifest(path)[0].participant.age == float(number)
    else:
        assert faults(path) == (f"line 2: age {number!r} is no number",)


def test_empty_cells_and_identities(folder):
    changes = ({"participant_id": "n/a"}, {"participant_id": ""}, {"sbr_left": ""}, {"age": ""})
    path = write(folder, [line(i, **change) for i, change in enumerate(changes, start=1)])
    assert faults(path) == (
        "line 2: participant_id is n/a",
        "line 3: participant_id is empty (write n/a for what is missing)",
        "line 4: sbr_left is empty (write n/a for what is missing)",
        "line 5: age is empty (write n/a for what is missing)",
    )
    assert "holds a blank or a slash" in faults(write(folder, [line(1, participant_id="../x")]))[0]


def test_images_belong_to_one_visit(folder):
    path = write(
        folder,
        [
            line(1),
            line(2, left="s1_left.nii.gz"),
            line(3, left="s3_right.nii.gz"),
            line(4, right="m.mat", left="m.mat"),
            line(5, right="n.mat"),
            line(6, right="m.mat", left="m.mat"),
        ],
    )
    assert faults(path) == (
        "line 3: the image s1_left.nii.gz is already that of line 2",
        "line 4: right and left are the same image",
        "line 6: a .mat holds both sides: give the same path twice",
        "line 7: the image m.mat is already that of line 5",
    )


def test_two_visits_of_a_patient_are_two_lines(folder):
    rows = read_manifest(write(folder, [line(1, session_id="a"), line(2, participant_id="sub-1", session_id="b")]))
    assert [row.participant.visit_id for row in rows] == ["sub-1_a", "sub-1_b"]


def test_misspelt_columns_are_faults_and_others_are_ignored_aloud(folder, caplog):
    path = write(folder, [line(1) | {"sbr_rigth": "1", "Age": "50"}])
    assert faults(path) == ("line 1: the column 'Age' is unknown: is 'age' meant?",)
    path = write(folder, [line(1) | {"motion_score": "1", "room": "B"}])
    assert len(read_manifest(path)) == 1
    assert "columns that are not used: motion_score, room" in caplog.text


def test_the_header_is_checked(folder):
    header = "\t".join([*NEEDED, "sbr_left", ""])
    assert faults(write(folder, [], text=header + "\n")) == (
        "line 1: the column 'sbr_left' stands there 2 times",
        "line 1: a column without a name",
    )
    wrong = "\t".join(("participant", *NEEDED[1:]))
    assert faults(write(folder, [], text=wrong + "\n"))[0].endswith("is 'participant_id' meant?")
    assert faults(write(folder, [], text="\t".join(NEEDED) + "\n")) == ("a header but no line below it",)


@pytest.mark.parametrize(("mark", "name"), [(",", "commas"), (";", "semicolons")])
def test_other_separators_are_named(folder, mark, name):
    (fault,) = faults(write(folder, [], text=mark.join(NEEDED) + "\n"))
    assert name in fault


@pytest.mark.parametrize("text", ["", "\n\n", "\ufeff"])
def test_an_empty_file_is_named(folder, text):
    (fault,) = faults(write(folder, [], text=text))
    assert fault.startswith("is empty")


def test_byte_order_mark_windows_and_old_mac_lines_are_tolerated(folder):
    plain = write(folder, [line(1), line(2)]).read_text()
    expected = read_manifest(folder / "manifest.tsv")
    for text in ("\ufeff" + plain.replace("\n", "\r\n"), plain.replace("\n", "\r"), plain + "\n \n"):
        (folder / "manifest.tsv").write_bytes(text.encode("utf-8"))
        assert read_manifest(folder / "manifest.tsv") == expected


@pytest.mark.parametrize("content", ["a\tb\n".encode("utf-16"), b"a\xff\n", b"PK\x03\x04\0\0"])
def test_what_is_no_utf8_text_is_named(folder, content):
    (folder / "manifest.tsv").write_bytes(content)
    (fault,) = faults(folder / "manifest.tsv")
    assert "no UTF-8 text" in fault


def test_a_missing_manifest_is_named(tmp_path):
    (fault,) = faults(tmp_path / "none.tsv")
    assert "cannot be read" in fault


ids = st.from_regex(r"sub-[A-Za-z0-9]{1,6}", fullmatch=True)
text_cells = st.text(string.ascii_letters + string.digits + " .-_äß漢'\"\x0b\u2028", max_size=8)
positive = st.floats(0, 1e6)


@st.composite
def visits(draw):
    labels = draw(st.none() | st.tuples(positive, positive)) or (None, None)
    return Participant(
        draw(ids),
        draw(ids | st.just("n/a")),
        *labels,
        age=draw(st.none() | st.floats(0, 130)),
        sex=draw(st.none() | st.sampled_from("MFO")),
        diagnosis=draw(st.none() | text_cells),
        mri_spect_days=draw(st.none() | st.floats(-1e4, 1e4)),
        spect_software=draw(st.none() | text_cells),
        hyperintensity_left=draw(st.none() | st.sampled_from(HYPERINTENSITY)),
    )


@given(st.lists(visits(), unique_by=lambda p: (p.participant_id, p.session_id), max_size=4))
def test_participants_survive_the_way_through_a_file_or_are_not_written(tmp_path_factory, table):
    path = tmp_path_factory.mktemp("table") / "participants.tsv"
    if any(participant_faults(p) for p in table):
        with pytest.raises(CohortError):
            write_participants(path, table)
    else:
        write_participants(path, table)
        assert read_participants(path) == tuple(table)


@pytest.mark.parametrize(
    "change",
    [
        {"sbr_left": None},
        {"sbr_right": -1.0},
        {"age": float("nan")},
        {"sex": "x"},
        {"scanner": "a\tb"},
        {"scanner": ""},
        {"tracer": "n/a"},
        {"participant_id": ""},
        {"session_id": "a b"},
    ],
)
def test_participants_that_could_not_be_read_back_are_not_written(tmp_path, change):
    good = Participant("sub-1", sbr_right=1.0, sbr_left=1.0)
    with pytest.raises(CohortError, match="do not fit"):
        write_participants(tmp_path / "p.tsv", [dataclasses.replace(good, **change)])
    with pytest.raises(CohortError, match="2 times"):
        write_participants(tmp_path / "p.tsv", [good, good])
    assert not (tmp_path / "p.tsv").exists()


def test_a_damaged_table_is_refused(tmp_path):
    path = tmp_path / "participants.tsv"
    write_participants(path, [Participant("sub-1", sbr_right=1.0, sbr_left=1.0)])
    whole = path.read_text()
    path.write_text(whole[:-20])
    with pytest.raises(ManifestError, match="fields, but the header has"):
        read_participants(path)
    path.write_text(whole.replace("sbr_left", "sbr_lefty"))
    with pytest.raises(ManifestError, match="is 'sbr_left' meant"):
        read_participants(path)


# -- An image with two centres instead of two patches ------------------------------------------------------------------

CUT = {"right_x": "11.5", "right_y": "-22", "right_z": "-13", "left_x": "-10.5", "left_y": "-22.5", "left_z": "-12"}


def cut_line(i, **changes):
    cells = {k: v for k, v in line(i).items() if k not in ("right", "left")}
    return cells | {"image": f"s{i}_right.nii.gz"} | CUT | changes


def test_an_image_with_centres_arrives(folder):
    (row,) = read_manifest(write(folder, [cut_line(1)]))
    assert row.right == row.left == folder / "s1_right.nii.gz"
    assert row.centres_mm == ((11.5, -22.0, -13.0), (-10.5, -22.5, -12.0))


def test_patches_and_images_may_stand_in_one_manifest(folder):
    patches = dict.fromkeys(("image", *CUT), "n/a")
    cut, whole = read_manifest(write(folder, [cut_line(1, right="n/a", left="n/a"), line(2) | patches]))
    assert cut.centres_mm is not None
    assert whole.centres_mm is None
    assert whole.left == folder / "s2_left.nii.gz"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image": "none.nii"}, "does not exist"),
        ({"image": "m.mat"}, "none of .nii, .nii.gz"),
        ({"right_x": "n/a"}, "right_x 'n/a' is no number"),
        ({"left_z": "1,5"}, "left_z '1,5' is no number"),
        ({"right_x": "-11.5", "left_x": "10.5"}, "right_x -11.5 is not larger than left_x 10.5"),
        ({"right": "s1_right.nii.gz", "left": "n/a"}, "right beside an image"),
    ],
)
def test_a_wrong_image_or_centre_is_named(folder, changes, words):
    (fault,) = faults(write(folder, [cut_line(1, **changes)]))
    assert words in fault


def test_an_image_without_all_centres_is_a_fault_of_the_header(folder):
    cells = cut_line(1)
    del cells["left_y"]
    assert faults(write(folder, [cells])) == ("line 1: the column 'left_y' is missing",)
