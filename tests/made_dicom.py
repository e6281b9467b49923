"""DICOM files made for tests: classic and enhanced MR of three makers, with identifiers planted wherever they fit."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

PLANTED = ("Mustermann", "PLANTEDID", "19560704", "Klinikum", "Secret Protocol", "1.2.826.0.1.99999")
UID = "1.2.826.0.1.99999"
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
MAKERS = {"Siemens": "SIEMENS", "Philips": "Philips Medical Systems", "GE": "GE MEDICAL SYSTEMS"}


@dataclass(frozen=True)
class Made:
    """One volume to be written: stored integers ``(X, Y, Z)``, and what its header says of it."""

    stored: np.ndarray
    affine: np.ndarray
    part: str = "M"
    echo_ms: float = 5.0
    echo_number: int = 1
    series: int = 1
    slope: float | None = None
    intercept: float | None = None
    unit: str | None = None
    scale_slope: float | None = None
    maker: str = "Siemens"
    acquisition: int = 1
    time: str = "101500"
    changes: Mapping[str, Any] = field(default_factory=dict)


def made(shape=(7, 6, 5), affine=None, seed=0, **kwargs) -> Made:
    stored = np.random.default_rng(seed).integers(0, 4096, shape).astype(np.uint16)
    return Made(stored, np.diag([1.0, 1.0, 2.0, 1.0]) if affine is None else affine, **kwargs)


def write_classic(folder: Path, *volumes: Made, name: str = "Mustermann_{:03d}.dcm", shuffle: int | None = 1):
    """One file a slice, in random order of names and instance numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    slices = [(volume, k) for volume in volumes for k in range(volume.stored.shape[2])]
    order = np.arange(len(slices)) if shuffle is None else np.random.default_rng(shuffle).permutation(len(slices))
    start = len(list(folder.iterdir()))
    paths = []
    for i, j in enumerate(order):
        volume, k = slices[j]
        data = header(volume, MRImageStorage)
        data.InstanceNumber = int(i) % 3  # doubled on purpose
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid(f"{UID}.")
        data.ImageType = ["ORIGINAL", "PRIMARY", *([volume.part] if volume.part else []), "ND"]
        data.EchoTime, data.EchoNumbers = volume.echo_ms, volume.echo_number
        data.update(place(volume, k))
        data.update(scaling(volume))
        private(data, volume)
        pixels(data, volume.stored[:, :, k : k + 1])
        change(data, volume.changes)
        paths.append(save(data, folder / name.format(start + i)))
    return paths


def write_enhanced(path: Path, *volumes: Made, shuffle: int = 1):
    """All volumes in one file, their frames mixed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    slices = [(volume, k) for volume in volumes for k in range(volume.stored.shape[2])]
    order = [slices[j] for j in np.random.default_rng(shuffle).permutation(len(slices))]
    first = volumes[0]
    data = header(first, EnhancedMRImageStorage)
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid(f"{UID}.")
    data.ImageType = ["ORIGINAL", "PRIMARY", "T2", "MIXED"]
    timing = item(RepetitionTime=data.RepetitionTime, FlipAngle=data.FlipAngle)
    data.SharedFunctionalGroupsSequence = Items([item(MRTimingAndRelatedParametersSequence=Items([timing]))])
    del data.RepetitionTime, data.FlipAngle
    data.PerFrameFunctionalGroupsSequence = Items([group(volume, k) for volume, k in order])
    data.NumberOfFrames = len(order)
    pixels(data, np.stack([volume.stored[:, :, k] for volume, k in order], axis=2))
    change(data, first.changes)
    return save(data, path)


def group(volume: Made, k: int) -> Dataset:
    component = {"M": "MAGNITUDE", "P": "PHASE", "R": "REAL", "I": "IMAGINARY"}.get(volume.part, "MIXED")
    where, scale = place(volume, k), scaling(volume)
    kind = item(FrameType=["ORIGINAL", "PRIMARY", "T2", volume.part], ComplexImageComponent=component)
    content = item(StackID="1", InStackPositionNumber=k + 1, TemporalPositionIndex=volume.acquisition)
    transformed = item(RescaleSlope=volume.slope or 1, RescaleIntercept=volume.intercept or 0, RescaleType="US")
    measures = item(PixelSpacing=where["PixelSpacing"].value, SliceThickness=where["SliceThickness"].value)
    frame = item(
        MREchoSequence=Items([item(EffectiveEchoTime=float(volume.echo_ms))]),
        MRImageFrameTypeSequence=Items([kind]),
        FrameContentSequence=Items([content]),
        PlanePositionSequence=Items([item(ImagePositionPatient=where["ImagePositionPatient"].value)]),
        PlaneOrientationSequence=Items([item(ImageOrientationPatient=where["ImageOrientationPatient"].value)]),
        PixelMeasuresSequence=Items([measures]),
        PixelValueTransformationSequence=Items([transformed]),
    )
    if volume.unit:
        frame.RealWorldValueMappingSequence = scale["RealWorldValueMappingSequence"].value
    if volume.scale_slope:  # Philips repeats public attributes in a private item, with another position
        inner = item(ImagePositionPatient=[0, 0, 0], RescaleType=volume.unit or "normalized", PatientName="Mustermann")
        block = inner.private_block(0x2005, "Philips MR Imaging DD 001", create=True)
        block.add_new(0x0D, "FL", 0.0)
        block.add_new(0x0E, "FL", volume.scale_slope)
        outer = frame.private_block(0x2005, "Philips MR Imaging DD 005", create=True)
        outer.add_new(0x0F, "SQ", Items([inner]))
    return frame


def header(volume: Made, kind: str) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = kind, ExplicitVRLittleEndian
    data = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.Modality = kind, "MR"
    data.Manufacturer, data.ManufacturerModelName = MAKERS[volume.maker], "Mustermann's Magnet"
    data.PatientName, data.PatientID, data.PatientBirthDate = "Mustermann^Max", "PLANTEDID", "19560704"
    data.InstitutionName, data.StationName, data.ReferringPhysicianName = "Klinikum", "Klinikum3T", "Mustermann^Eva"
    data.StudyDescription, data.ProtocolName, data.ImageComments = ("Secret Protocol of Mustermann",) * 3
    data.SeriesDescription = "Secret Protocol"
    data.StudyDate = data.SeriesDate = data.AcquisitionDate = "19560704"
    data.StudyInstanceUID, data.FrameOfReferenceUID = f"{UID}.1", f"{UID}.2"
    data.SeriesInstanceUID, data.SeriesNumber = f"{UID}.3.{volume.series}", volume.series
    data.AcquisitionNumber, data.AcquisitionTime = volume.acquisition, volume.time
    data.BodyPartExamined, data.MRAcquisitionType, data.MagneticFieldStrength = "BRAIN", "3D", 3
    data.RepetitionTime, data.FlipAngle, data.PixelBandwidth = 48, 20, 260
    hidden = data.private_block(0x0099, "MUSTERMANN TOOLS", create=True)
    hidden.add_new(0x01, "LO", "PLANTEDID Mustermann 19560704")
    return data


def place(volume: Made, k: int) -> Dataset:
    to_lps = LPS @ volume.affine
    size = np.linalg.norm(to_lps[:3, :3], axis=0)
    along = (to_lps[:3, :2] / size[:2]).T.ravel()
    position = to_lps[:3, 3] + k * to_lps[:3, 2]
    return item(
        ImagePositionPatient=[f"{x:.10g}"[:16] for x in position],
        ImageOrientationPatient=[f"{x:.10f}"[:16] for x in along],
        PixelSpacing=[float(size[1]), float(size[0])],  # distance of rows, then of columns
        SliceThickness=float(size[2]),
    )


def scaling(volume: Made) -> Dataset:
    out = Dataset()
    if volume.slope is not None:
        out.RescaleSlope, out.RescaleIntercept, out.RescaleType = volume.slope, volume.intercept or 0, "US"
    if volume.unit:
        code = item(CodeValue=volume.unit, CodingSchemeDesignator="UCUM", CodeMeaning=volume.unit)
        mapping = item(MeasurementUnitsCodeSequence=Items([code]))
        out.RealWorldValueMappingSequence = Items([mapping])
    return out


def private(data: Dataset, volume: Made) -> None:
    if volume.maker == "GE":
        value = {"M": 0, "P": 1, "R": 2, "I": 3}.get(volume.part)
        if value is not None:
            data.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
            data.private_block(0x0043, "GEMS_PARM_01", create=True).add_new(0x2F, "SS", value)
    if volume.scale_slope:
        block = data.private_block(0x2005, "Philips MR Imaging DD 001", create=True)
        block.add_new(0x0D, "FL", 0.0)
        block.add_new(0x0E, "FL", volume.scale_slope)


def pixels(data: Dataset, stored: np.ndarray) -> None:
    """``(X, Y, frames)``: columns, rows, frames."""
    frames = np.ascontiguousarray(stored.transpose(2, 1, 0))
    data.Rows, data.Columns, data.SamplesPerPixel = frames.shape[1], frames.shape[2], 1
    data.PhotometricInterpretation, data.BitsAllocated = "MONOCHROME2", 16
    signed = frames.dtype.kind == "i"
    data.BitsStored, data.HighBit, data.PixelRepresentation = (16, 15, 1) if signed else (12, 11, 0)
    data.PixelData = frames.astype("<i2" if signed else "<u2").tobytes()


def change(data: Dataset, changes: Mapping[str, Any]) -> None:
    for keyword, value in changes.items():
        if value is None:
            del data[keyword]
        else:
            setattr(data, keyword, value)


def item(**values: Any) -> Dataset:
    out = Dataset()
    for keyword, value in values.items():
        setattr(out, keyword, value)
    return out


def save(data: FileDataset, path: Path) -> Path:
    data.ContentDate = datetime.date(1956, 7, 4).strftime("%Y%m%d")
    data.save_as(path, enforce_file_format=True)
    return path


def multi_echo(
    maker: str,
    phase: np.ndarray,
    magnitude: np.ndarray,
    affine: np.ndarray,
    times: Sequence[float] = (14.0, 27.0, 40.0),
) -> list[Made]:
    """Magnitude and phase (radians, ``(E, X, Y, Z)``) as a maker stores them, one volume for each part and echo."""
    out = []
    for e, time in enumerate(times):
        plain = Made(magnitude[e].astype(np.uint16), affine, echo_ms=time, echo_number=e + 1, maker=maker)
        if maker == "Siemens":  # 12 bit, a series for each part
            stored = np.round(phase[e] / np.pi * 2048 + 2048).clip(0, 4095).astype(np.uint16)
            out += [plain, replace(plain, stored=stored, part="P", series=2, slope=2, intercept=-4096)]
        elif maker == "Philips":  # milliradians, one series, private scaling of the magnitude
            slope = 2 * 3142 / 4095
            stored = np.round((phase[e] * 1000 + 3142) / slope).clip(0, 4095).astype(np.uint16)
            out.append(replace(plain, slope=1.25, intercept=0, scale_slope=0.5))
            out.append(replace(plain, stored=stored, part="P", slope=slope, intercept=-3142, unit="mrad"))
        else:  # GE: milliradians as signed numbers, the other way round
            stored = np.round(-phase[e] * 1000).astype(np.int16)
            out += [plain, replace(plain, stored=stored, part="P")]
    return out
