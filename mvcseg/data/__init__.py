"""Videos, label maps and data sets on disk."""

from mvcseg.data.frames import FrameFolder
from mvcseg.data.io import VideoFile, open_video, write_video
from mvcseg.data.label_maps import LabelFolder, read_classes, read_label_map, write_classes, write_label_map
from mvcseg.data.palette import class_colours
from mvcseg.data.pipe import iter_frames
from mvcseg.data.spool import spool_video
from mvcseg.data.vspw import VSPW, VSPWVideo

__all__ = [
    "VSPW",
    "FrameFolder",
    "LabelFolder",
    "VSPWVideo",
    "VideoFile",
    "class_colours",
    "iter_frames",
    "open_video",
    "read_classes",
    "read_label_map",
    "spool_video",
    "write_classes",
    "write_label_map",
    "write_video",
]
