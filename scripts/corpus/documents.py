"""Writes the documents of tests/corpus that python-docx, openpyxl, python-pptx, Pillow and msoffcrypto make.

Usage: documents.py DIRECTORY
"""

import datetime
import pathlib
import sys

import docx
import docx.enum.text
import docx.oxml
import docx.oxml.ns
import msoffcrypto.format.ooxml
import openpyxl
import pptx
import pptx.util
from PIL import Image, ImageDraw

directory = pathlib.Path(sys.argv[1])


def link(paragraph, text, url):
    """Adds a hyperlink, which python-docx only reads."""
    relation = paragraph.part.relate_to(url, docx.opc.constants.RELATIONSHIP_TYPE.HYPERLINK, is_external=True)
    element = docx.oxml.OxmlElement("w:hyperlink")
    element.set(docx.oxml.ns.qn("r:id"), relation)
    run = docx.oxml.OxmlElement("w:r")
    words = docx.oxml.OxmlElement("w:t")
    words.text = text
    run.append(words)
    element.append(run)
    paragraph._p.append(element)


def word():
    document = docx.Document()
    document.core_properties.title = "Garden plan"
    document.add_heading("Garden plan", 0)
    paragraph = document.add_paragraph("Made with ")
    paragraph.add_run("bold").bold = True
    paragraph.add_run(" care; see ")
    link(paragraph, "the seed list", "https://example.org/seeds?a=1&b=2")
    document.add_heading("Beds", 1)
    document.add_paragraph("Roses", style="List Bullet")
    document.add_paragraph("Herbs", style="List Bullet")
    document.add_paragraph("Thyme", style="List Bullet 2")
    document.add_paragraph("Trees", style="List Bullet")
    document.add_heading("Steps", 2)
    document.add_paragraph("Dig", style="List Number")
    document.add_paragraph("Plant", style="List Number")
    document.add_paragraph("Water", style="List Number")
    table = document.add_table(rows=1, cols=3)
    for cell, text in zip(table.rows[0].cells, ("Bed", "Width", "Note")):
        cell.text = text
    for row in (("North", "2 m", "a|b"), ("South", "3 m", "first\nsecond")):
        for cell, text in zip(table.add_row().cells, row):
            cell.text = text
    lines = document.add_paragraph("First line")
    lines.add_run().add_break(docx.enum.text.WD_BREAK.LINE)
    lines.add_run("second line")
    document.add_paragraph("1. not a list * nor_emphasis_ [nor a link](x)")
    document.save(directory / "garden.docx")


def workbook():
    book = openpyxl.Workbook()
    stock = book.active
    stock.title = "Stock"
    stock.append(["Item", "Count", "Price", "Since", "Sold out"])
    stock.append(["Bolt M6", 120, 0.25, datetime.date(2024, 3, 1), False])
    stock.append(["Nut | large", 0, 1.5, datetime.date(2023, 12, 24), True])
    stock.append(["Total", "=SUM(B2:B3)", None, None, None])
    stock["A2"].hyperlink = "https://example.org/bolt"
    stock["G7"] = "far away"
    people = book.create_sheet("People & places")
    people.append(["Name", "Town"])
    people.append(["Zoë", "Łódź"])
    people.append(["two\nlines", None])
    people.merge_cells("A4:B4")
    people["A4"] = "merged"
    book.create_sheet("Empty")
    book.properties.title = "Stock list"
    book.save(directory / "stock.xlsx")
    book.template = True
    book.save(directory / "stock.xltx")
    with open(directory / "stock.xlsx", "rb") as plain, open(directory / "encrypted.xlsx", "wb") as encrypted:
        msoffcrypto.format.ooxml.OOXMLFile(plain).encrypt("secret", encrypted)


def slides():
    show = pptx.Presentation()
    show.core_properties.title = "Bridge talk"
    slide = show.slides.add_slide(show.slide_layouts[0])
    slide.shapes.title.text = "Bridges"
    slide.placeholders[1].text = "An overview"
    slide = show.slides.add_slide(show.slide_layouts[1])
    slide.shapes.title.text = "Kinds"
    frame = slide.placeholders[1].text_frame
    frame.text = "Beam"
    for text, level in (("of wood", 1), ("Arch", 0)):
        paragraph = frame.add_paragraph()
        paragraph.text = text
        paragraph.level = level
    slide.notes_slide.notes_text_frame.text = "Tell the story of the old arch."
    slide = show.slides.add_slide(show.slide_layouts[5])
    slide.shapes.title.text = "Spans"
    inch = pptx.util.Inches
    table = slide.shapes.add_table(3, 2, inch(1), inch(2), inch(6), inch(2)).table
    for row, texts in enumerate((("Bridge", "Span"), ("Forth", "521 m"), ("Humber", "1410 m"))):
        for column, text in enumerate(texts):
            table.cell(row, column).text = text
    run = slide.shapes.add_textbox(inch(1), inch(5), inch(6), inch(1)).text_frame.paragraphs[0].add_run()
    run.text = "more figures"
    run.hyperlink.address = "https://example.org/spans"
    show.save(directory / "bridges.pptx")


def pictures():
    pages = []
    for number in (1, 2, 3):
        page = Image.new("1", (620, 877), 1)
        ImageDraw.Draw(page).text((80, 80), f"Scanned page {number}", fill=0, font_size=40)
        pages.append(page)
    pages[0].save(directory / "scanned.pdf", save_all=True, append_images=pages[1:], resolution=75)
    pages[0].crop((60, 60, 460, 160)).save(directory / "picture.png")


word()
workbook()
slides()
pictures()
