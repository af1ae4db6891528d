"""HL7 messages as hospitals send them, and a sender that speaks MLLP."""

import socket
from typing import Any

START, END = b"\x0b", b"\x1c\r"


def message(*segments: str, codec: str = "utf-8") -> bytes:
    return "".join(f"{segment}\r" for segment in segments).encode(codec)


def msh(kind: str, control: str = "M1", charset: str = "UNICODE UTF-8", version: str = "2.5.1") -> str:
    ends = "RIS|HOSPITAL|IMAGINGSTUDYD|RADIOLOGY"
    return f"MSH|^~\\&|{ends}|20260105080000||{kind}|{control}|P|{version}||||||{charset}"


def pid(
    number: str = "P1",
    name: str = "Doe^Jane^Q^Jr^Dr",
    birth: str = "19700102",
    sex: str = "F",
    authority: str = "",
) -> str:
    return f"PID|1||{number}^^^{authority}^MR||{name}||{birth}|{sex}"


def order_group(
    control: str = "NW",
    *,
    placer: str = "PL1",
    filler: str = "FI1",
    accession: str = "A1",
    procedure: str = "RP1",
    step: str = "SPS1",
    start: str = "20260105101500",
    status: str = "SC",
    obr4: str = "CTHEAD^CT Head^99RIS^CTH1^Head native^99RIS",
) -> list[str]:
    """Return ORC and OBR of IHE's Procedure Scheduled."""
    by = "12^Roe^Richard^^^Dr"
    orc = f"ORC|{control}|{placer}^HIS|{filler}^RIS||{status}||^^^{start}^^S||20260104120000|||{by}"
    obr = (
        f"OBR|1|{placer}^HIS|{filler}^RIS|{obr4}||||||||||||12^Roe^Richard^^^Dr||{accession}|{procedure}|{step}|||"
        f"|CT|||^^^{start}^^S||||^Head \\T\\ neck pain|||55^Tech^Tom"
    )
    return [orc, obr]


def orm(
    control: str = "NW",
    *,
    patient: str | None = None,
    uid: str = "",
    charset: str = "UNICODE UTF-8",
    **group: Any,
) -> bytes:
    segments = [msh("ORM^O01", charset=charset), patient or pid(), "PV1|1|I|WARD1^^|||||7^Ref^Rita"]
    segments += order_group(control, **group)
    return message(*segments, *([f"ZDS|{uid}^100^Application^DICOM"] if uid else []))


def adt(event: str, *segments: str) -> bytes:
    return message(msh(f"ADT^{event}"), f"EVN|{event}|20260105", *segments)


class Sender:
    """One connection of an interface engine."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, 5)
        self.socket.settimeout(10)
        self._buffer = b""

    def send(self, content: bytes) -> list[list[str]]:
        """Send a message; return its acknowledgement as segments of fields."""
        self.socket.sendall(START + content + END)
        return self.answer()

    def answer(self) -> list[list[str]]:
        while END not in self._buffer:
            chunk = self.socket.recv(65536)
            if not chunk:
                raise ConnectionError("closed without an answer")
            self._buffer += chunk
        framed, self._buffer = self._buffer.split(END, 1)
        assert framed.startswith(START)
        return [segment.split("|") for segment in framed[1:].decode("utf-8").split("\r") if segment]

    def close(self) -> None:
        self.socket.close()


def verdict(answer: list[list[str]]) -> str:
    """Return MSA-1, and MSA-3 where there is one."""
    msa = next(segment for segment in answer if segment[0] == "MSA")
    return " ".join([msa[1], *msa[3:4]])
