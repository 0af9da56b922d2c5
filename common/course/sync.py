"""`course sync`: bring what the READMEs and notes quote up to date with the curriculum, the docstrings and the results.

Ticks stay, and so does every text outside what is generated: on a checklist line that is the part from the script's
name to the last word written here, so a remark in front of it or after it survives.
"""
import argparse
import json
import re
import sys
from pathlib import Path

from common.course import curriculum as plan
from common.course.curriculum import Curriculum, Entry, Phase
from common.course.readme import _BOX, _ROW, TO_DO, Readme, progress, read_both, region_of, script_in, ticked_in, write_all
from common.errors import LessonError
from common.files import write_text
from common.lessons import ROOT

WORDS = {
    "en": {"min": "min", "note": "note", "elective": "elective", "unwritten": "*not yet written*", "last": "Portfolio and interviews",
           "head": ("Week", "Phase", "Files", "Project", "State")},
    "zh": {"min": "分钟", "note": "笔记", "elective": "选修", "unwritten": "*尚未写出*", "last": "作品集与面试",
           "head": ("周", "阶段", "文件", "项目", "状态")},
}
