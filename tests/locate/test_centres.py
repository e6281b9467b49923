"""Centres from every kind of file end at the same place, and none is read in the wrong coordinates."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nigradat.anatomy import Side
from nigradat.errors import ConfigError, ImageError, LateralityError
from nigradat.io.nifti import write_volume
from nigradat.locate.centres import read_centres, write_centres

RIGHT, LEFT = np.array([11.5, -22.25, -13.0]), np.array([-10.75, -22.0, -12.5])
AFFINE = np.array([[0.0, -0.5, 0, 30], [0.5, 0, 0, -40], [0, 0, 1.0, -30], [0, 0, 0, 1]])
FCSV_HEAD = (
    "# Markups fiducial file version = 4.11\n# CoordinateSystem = {}\n"
    "# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID\n"
)


def lps(point):
    return point * (-1, -1, 1)


def fcsv(system, points):
    lines = [f"{i},{p[0]},{p[1]},{p[2]},0,0,0,1,1,1,0,{label},,,2,0" for i, (label, p) in enumerate(points)]
    return FCSV_HEAD.format(system) + "\n".join(lines) + "\n"


def markups(system, points):
    control = [{"id": str(i), "label": label, "position": list(p)} for i, (label, p) in enumerate(points)]
    return json.dumps({"markups": [{"type": "Fiducial", "coordinateSystem": system, "controlPoints": control}]})


def snap(points):
    def element(i, label, point):
        index = np.linalg.solve(AFFINE[:3, :3], point - AFFINE[:3, 3]) + 0.5
        return (
            f'<folder key="Element[{i}]"><entry key="Type" value="LandmarkAnnotation"/>'
            f'<entry key="Pos" value="{index[0]} {index[1]} {index[2]}"/><entry key="Text" value="{label}"/></folder>'
        )

    body = "".join(element(i, *p) for i, p in enumerate(points))
    return (
        '<?xml version="1.0" encoding="UTF-8" ?><!DOCTYPE registry [<!ELEMENT registry (entry*,folder*)>]><registry>'
        '<entry key="Format" value="ITK-SNAP Annotation File"/><entry key="FormatDate" value="20150624"/>'
        f'<folder key="Annotations"><entry key="ArraySize" value="{len(points)}"/>{body}</folder></registry>'
    )


def tsv(cells):
    header = "right_x\tright_y\tright_z\tleft_x\tleft_y\tleft_z"
    return header + "\n" + "\t".join(map(str, cells)) + "\n"


NAMED = [("L n1", LEFT), ("R n1", RIGHT)]
FILES = {
    "one-line.tsv": tsv([*RIGHT, *LEFT]),
    "two-lines.tsv": "side\tx\ty\tz\nleft\t-10.75\t-22\t-12.5\nright\t11.5\t-22.25\t-13\n",
    "lps.fcsv": fcsv("LPS", [(n, lps(p)) for n, p in NAMED]),
    "ras.fcsv": fcsv("RAS", NAMED),
    "old-ras.fcsv": fcsv("0", NAMED),
    "old-lps.fcsv": fcsv("1", [(n, lps(p)) for n, p in NAMED]),
    "lps.mrk.json": markups("LPS", [(n, lps(p)) for n, p in NAMED]),
    "ras.mrk.json": markups("RAS", NAMED),
    "unnamed.mrk.json": markups("LPS", [("F-1", lps(LEFT)), ("F-2", lps(RIGHT))]),
    "with-others.mrk.json": markups("RAS", [("AC", np.zeros(3)), *NAMED]),
    "snap.annot": snap([("right", RIGHT), ("left", LEFT)]),
}


@pytest.mark.parametrize("name", FILES)
def test_every_format_ends_at_the_same_place(tmp_path, name):
    (tmp_path / name).write_text(FILES[name], encoding="utf-8")
    centres = read_centres(tmp_path / name, AFFINE)
    np.testing.assert_allclose(centres[Side.RIGHT], RIGHT, atol=1e-9)
    np.testing.assert_allclose(centres[Side.LEFT], LEFT, atol=1e-9)


REFUSED = {
    "lps-as-ras.mrk.json": (markups("RAS", [(n, lps(p)) for n, p in NAMED]), LateralityError, "LPS"),
    "unknown.mrk.json": (markups("IJK", NAMED), ConfigError, "coordinate system IJK"),
    "none.fcsv": (fcsv("", NAMED), ConfigError, "coordinate system"),
    "three.mrk.json": (markups("RAS", [("a", RIGHT), ("b", LEFT), ("c", LEFT)]), ConfigError, "3 points"),
    "two-rights.mrk.json": (markups("RAS", [("R", RIGHT), ("right", LEFT)]), ConfigError, "2 points"),
    "half-named.mrk.json": (markups("RAS", [("R", RIGHT), ("F-2", LEFT)]), ConfigError, "2 points"),
    "one.annot": (snap([("right", RIGHT)]), ConfigError, "1 points"),
    "workspace.annot": ("<registry><entry key='Format' value='x'/></registry>", ConfigError, "the format 'x'"),
    "bomb.annot": ('<!DOCTYPE a [<!ENTITY b "c">]><registry/>', ConfigError, "entities"),
    "cut.annot": ("<registry><entry", ConfigError, "ParseError"),
    "no-number.tsv": (tsv(["x", *RIGHT[1:], *LEFT]), ConfigError, "no-number.tsv"),
    "nan.tsv": (tsv(["nan", *RIGHT[1:], *LEFT]), ConfigError, "right centre"),
    "columns.tsv": ("a\tb\n1\t2\n", ConfigError, "the columns a, b"),
    "several.tsv": (tsv([*RIGHT, *LEFT]) + "1\t2\t3\t4\t5\t6\n", ConfigError, "2 lines"),
    "exchanged.tsv": (tsv([*LEFT, *RIGHT]), LateralityError, "exchanged.tsv"),
    "empty.tsv": ("", ConfigError, "no list of points"),
    "points.csv": ("1,2,3", ConfigError, ".csv"),
    "list.mrk.json": ("[]", ConfigError, "no list of points"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_side_is_never_guessed(tmp_path, name):
    text, error, words = REFUSED[name]
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(error, match=words.replace(".", r"\.")):
        read_centres(tmp_path / name, AFFINE)


def test_a_missing_file_and_one_that_is_no_text(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        read_centres(tmp_path / "none.tsv", AFFINE)
    (tmp_path / "binary.tsv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="no UTF-8"):
        read_centres(tmp_path / "binary.tsv", AFFINE)


@pytest.mark.parametrize("labels", [(1, 1), (7, 3)])
def test_a_label_image_is_taken_by_its_centres_of_mass(tmp_path, labels):
    image = np.zeros((40, 30, 20), np.uint8)
    image[4:7, 10:13, 5:8] = labels[0]
    image[30:33, 11:14, 6:9] = labels[1]
    affine = np.diag([-1.0, 1, 1, 1])
    affine[0, 3] = 20
    write_volume(tmp_path / "labels.nii.gz", image, affine)
    centres = read_centres(tmp_path / "labels.nii.gz", AFFINE)
    np.testing.assert_allclose(centres[Side.RIGHT], (15, 11, 6))
    np.testing.assert_allclose(centres[Side.LEFT], (-11, 12, 7))


def test_a_label_image_with_three_regions_is_refused(tmp_path):
    image = np.zeros((20, 20, 20), np.uint8)
    image[2, 2, 2], image[10, 10, 10], image[15, 15, 15] = 1, 2, 3
    write_volume(tmp_path / "labels.nii", image, np.eye(4))
    with pytest.raises(ImageError, match="3 labelled regions"):
        read_centres(tmp_path / "labels.nii", AFFINE)


coordinate = st.floats(-200, 200, allow_nan=False)
point = st.tuples(st.floats(1, 200), coordinate, coordinate)


@given(right=point, left=point)
def test_what_is_written_is_read_again(tmp_path_factory, right, left):
    path = tmp_path_factory.mktemp("centres") / "centres.tsv"
    left = (-left[0], *left[1:])
    write_centres(path, {Side.RIGHT: np.array(right), Side.LEFT: np.array(left)})
    centres = read_centres(path, AFFINE)
    np.testing.assert_allclose(centres[Side.RIGHT], right, atol=6e-4)
    np.testing.assert_allclose(centres[Side.LEFT], left, atol=6e-4)
