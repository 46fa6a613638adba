#!/usr/bin/env bash
# Makes the documents of tests/corpus again, with the programs that people make them with: LibreOffice,
# python-docx, openpyxl, python-pptx. They are kept in the repository, since LibreOffice is large and no
# test needs it; run this to change them, and look at what the tests of tests/it/parse* say then.
#
# Needs soffice (on Debian: apt-get install --no-install-recommends libreoffice-writer-nogui
# libreoffice-calc-nogui libreoffice-impress-nogui) and Python 3 with venv.
set -euo pipefail

cd "$(dirname "$0")/.."
corpus=$PWD/tests/corpus
sources=$PWD/scripts/corpus
command -v soffice >/dev/null || {
    echo "corpus: error: soffice is missing; install libreoffice-{writer,calc,impress}-nogui" >&2
    exit 1
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/python3" -m pip install --quiet --disable-pip-version-check --requirement "$sources/requirements.txt"
"$work/venv/bin/python3" "$sources/documents.py" "$corpus"

# office FROM TO [NAME]: converts FROM to TO, FILTER included, as NAME.
office() {
    local suffix=${2%%:*}
    soffice --headless "-env:UserInstallation=file://$work/profile" --convert-to "$2" --outdir "$work/out" "$1" >&2
    mv "$work/out/$(basename "${1%.*}").$suffix" "$corpus/${3:-$(basename "${1%.*}").$suffix}"
}

for suffix in odt docx:"MS Word 2007 XML" doc:"MS Word 97" pdf epub html:"HTML (StarWriter)"; do
    office "$sources/report.fodt" "$suffix"
done
office "$sources/report.fodt" \
    'pdf:writer_pdf_Export:{"EncryptFile":{"type":"boolean","value":"true"},"DocumentOpenPassword":{"type":"string","value":"secret"}}' \
    encrypted.pdf
for suffix in ods xls:"MS Excel 97" xlsm:"Calc MS Excel 2007 VBA XML" csv; do
    office "$corpus/stock.xlsx" "$suffix"
done
for suffix in odp ppt:"MS PowerPoint 97"; do
    office "$corpus/bridges.pptx" "$suffix"
done
ls -l "$corpus"
