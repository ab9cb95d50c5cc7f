"""Pictures of a folder: which are taken, how they are read, and what their colours give."""

from __future__ import annotations

import io
import logging
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from recbole_missing.data import encoded, pictures
from recbole_missing.data.catalogue import Catalogue
from recbole_missing.data.sources import feature_files, open_source

TOKENS = ("[PAD]", *(str(number) for number in range(1, 13)))
RED, GREEN, BLUE = (250, 10, 10), (10, 250, 10), (10, 10, 250)


def block(left=RED, right=BLUE, size=(40, 30)):
    """A picture with one colour on the left and one on the right."""
    image = Image.new("RGB", size, left)
    image.paste(right, (size[0] // 2, 0, *size))
    return image


def content_of(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.fixture
def shop(tmp_path):
    """Twelve items; the first ten have pictures, of two kinds with some noise."""
    folder = tmp_path / "shop" / "photos"
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for number in range(1, 11):
        image = block(RED, BLUE) if number % 2 else block(GREEN, RED)
        noise = generator.integers(0, 9, (30, 40, 3)) + np.asarray(image) // 2
        Image.fromarray(noise.astype(np.uint8)).save(folder / f"{number}.png")
    return Catalogue("shop", folder.parent, TOKENS, "item_id")


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.INFO)
    return lambda: [record.getMessage() for record in caplog.records]


def opened(catalogue, **settings):
    return open_source("photo", {"photo_images": "photos", **settings}, catalogue)


def refusal(call, *args, **settings):
    with pytest.raises(ValueError) as caught:
        call(*args, **settings)
    return str(caught.value)


# ------------------------------------------------------------------------------- which are taken


def test_the_stem_is_the_item_and_the_ending_says_a_picture(shop):
    folder = shop.folder / "photos"
    for name in ("11.JPG", "deep/12.webp"):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        block().save(path)
    for name in ("1.txt", "._2.png", "notes.csv"):
        (folder / name).write_bytes(b"no picture")
    source = opened(shop)
    assert source.present.tolist() == [False] + [True] * 12
    assert len(feature_files("photo", {"photo_images": "photos"}, shop)) == 12


def test_an_absolute_folder(shop):
    folder = str(shop.folder / "photos")
    assert opened(shop, photo_images=folder).present.sum() == 10


def test_files_of_unknown_items_are_counted(shop, said):
    for name in ("77.png", "no.gif"):
        block().save(shop.folder / "photos" / name)
    assert opened(shop).present.sum() == 10
    assert "photos: 2 of 12 pictures ignored, no such item: '77', 'no'." in said()


def test_two_pictures_of_one_item(shop):
    folder = shop.folder / "photos"
    block().save(folder / "4.gif")
    text = refusal(opened, shop)
    assert f"item '4' must have one picture, got {folder / '4.gif'} and {folder / '4.png'}" in text
    (folder / "4.gif").unlink()
    block().save(folder / "unknown.gif")
    block().save(folder / "unknown.png")  # no item has it, so nothing has to be chosen
    opened(shop)


def test_folders_that_hold_no_picture(shop):
    (shop.folder / "empty").mkdir()
    assert "empty must be a folder of pictures" in refusal(opened, shop, photo_images="empty")
    file = "photos/1.png"
    assert "1.png must be a folder of pictures" in refusal(opened, shop, photo_images=file)
    assert "must name a file or folder" in refusal(opened, shop, photo_images="absent")


def test_no_picture_is_of_an_item(shop):
    for path in (shop.folder / "photos").iterdir():
        path.rename(path.with_name(f"item{path.name}"))
    text = refusal(opened, shop)
    assert "no id matches (10 ids, 12 items): the data set has '1', the file has 'item1'" in text


# ------------------------------------------------------------------------------ how they are read


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("JPEG", {"quality": 95, "subsampling": 0}),
        ("WEBP", {"lossless": True}),
        ("GIF", {}),
        ("BMP", {}),
        ("TIFF", {}),
    ],
)
def test_every_format_gives_the_same_picture(kind, options):
    image = pictures.read(content_of(block(), kind, **options))
    assert image.mode == "RGB" and image.size == (40, 30)
    lost = np.abs(np.asarray(image).astype(int) - np.asarray(block()))
    assert lost.max() <= 30  # JPEG and GIF lose some


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr"])
def test_every_mode_becomes_rgb(mode):
    kind = "TIFF" if mode in ("CMYK", "YCbCr") else "PNG"
    white = Image.new("RGB", (8, 8), "white").convert(mode)
    image = pictures.read(content_of(white, kind))
    assert image.mode == "RGB" and np.asarray(image).min() >= 250


@pytest.mark.parametrize("kind", ["PNG", "GIF", "WEBP"])
def test_what_is_transparent_is_white(kind):
    image = Image.new("RGBA", (8, 8), (*RED, 0))
    image.paste((*BLUE, 255), (0, 0, 4, 8))
    options = {"lossless": True} if kind == "WEBP" else {}
    found = np.asarray(pictures.read(content_of(image, kind, **options)))
    assert found[:, 4:].min() >= 250
    assert np.abs(found[:, :4].astype(int) - BLUE).max() <= 30


def test_grey_values_of_16_bits_are_scaled():
    values = np.linspace(0, 2**16 - 1, 64).astype(np.uint16).reshape(8, 8)
    found = np.asarray(pictures.read(content_of(Image.fromarray(values), "PNG")))
    np.testing.assert_array_equal(found, np.repeat((values // 257)[..., None], 3, axis=2))


def test_the_first_frame_of_an_animation():
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, BLUE)]
    content = content_of(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert np.abs(np.asarray(pictures.read(content)).astype(int) - RED).max() <= 30


@pytest.mark.parametrize("size", [None, 8])
def test_the_orientation_of_a_camera(size):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise
    content = content_of(block(size=(64, 32)), "JPEG", quality=95, exif=exif)
    image = pictures.read(content, size)
    assert image.size[0] < image.size[1]
    top = np.asarray(image)[0, 0].astype(int)
    assert np.abs(top - RED).max() < 30


def test_a_smaller_reading_of_a_jpeg_gives_about_the_same_colours():
    content = content_of(block(size=(800, 600)), "JPEG", quality=95)
    whole, quick = (pictures.colours(pictures.read(content, size)) for size in (None, 64))
    np.testing.assert_allclose(quick, whole, atol=0.05)


def png_of(width, height):
    """A PNG that claims a size and holds nothing of it."""

    def chunk(kind, data):
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def float_tiff():
    return content_of(Image.fromarray(np.ones((4, 4), dtype=np.float32)), "TIFF")


BROKEN = {
    "empty": (b"", "0 bytes"),
    "text": (b"<html>not found</html>", "not a picture"),
    "half a PNG": (content_of(Image.effect_noise((99, 99), 99))[:2000], "truncated"),
    "half a JPEG": (content_of(Image.effect_noise((99, 99), 99), "JPEG")[:900], "truncated"),
    "a bomb": (png_of(60_000, 60_000), "more than 89,478,485 pixels"),
    "a small bomb": (png_of(10_000, 10_000), "more than 89,478,485 pixels"),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
    "numbers": (float_tiff(), "not colours"),
}


@pytest.mark.parametrize(("content", "reason"), BROKEN.values(), ids=BROKEN)
def test_what_is_no_picture_is_refused(content, reason):
    with pytest.raises(pictures.UnreadableError, match=reason):
        pictures.read(content)


def test_unreadable_pictures_are_holes_and_counted(shop, said):
    folder = shop.folder / "photos"
    for number, (content, _) in zip(range(1, 7), BROKEN.values()):
        (folder / f"{number}.png").write_bytes(content)
    source = opened(shop)
    assert np.flatnonzero(source.present).tolist() == [7, 8, 9, 10]
    line = next(text for text in said() if "cannot be read" in text)
    assert line.startswith("photo: the pictures of photos must be whole, got 6 of 10 that cannot")
    assert "1.png (0 bytes), 2.png (not a picture), " in line and "6.png" not in line
    text = refusal(opened, shop, photo_unreadable="error")
    assert text.startswith("photo: the pictures of photos must be whole, got 6 of 10 that cannot")
    with_error = opened(shop, photo_unreadable="hole")
    np.testing.assert_array_equal(with_error.present, source.present)


def test_a_file_that_the_system_does_not_give(shop, said):
    (shop.folder / "photos" / "11.png").symlink_to("nowhere.png")
    assert opened(shop).present.sum() == 10
    assert any("11.png (No such file or directory)" in text for text in said())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no named pipes")
def test_a_pipe_is_no_picture(shop, said):
    os.mkfifo(shop.folder / "photos" / "11.png")
    assert opened(shop).present.sum() == 10
    assert any("11.png (not a regular file)" in text for text in said())


def test_no_picture_can_be_read(shop):
    for path in (shop.folder / "photos").iterdir():
        path.write_bytes(b"")
    assert "0 of 12 items have it" in refusal(opened, shop)


# --------------------------------------------------------------------------------- the features


def test_colours_are_what_the_docstring_says():
    found = pictures.colours(block(size=(64, 64)))
    assert found.shape == (256,) and found.dtype == np.float32
    thumbnail = found[: pictures.BLOCKS[0]].reshape(8, 8, 3)
    np.testing.assert_allclose(thumbnail[:, :4], np.broadcast_to(np.array(RED) / 255, (8, 4, 3)))
    np.testing.assert_allclose(thumbnail[:, 4:], np.broadcast_to(np.array(BLUE) / 255, (8, 4, 3)))
    shares = found[pictures.BLOCKS[0] :].reshape(4, 4, 4)
    assert shares[3, 0, 0] == shares[0, 0, 3] == 0.5 and shares.sum() == 1


def test_alike_pictures_have_alike_features(shop):
    features = opened(shop, photo_dim=4).features(opened(shop).present)[1:11]
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    cosines = unit @ unit.T
    odd = np.arange(10) % 2 == 0
    assert cosines[odd][:, odd].min() > 0.9 and cosines[odd][:, ~odd].max() < 0


def test_size_and_order_of_the_features(shop, said):
    assert opened(shop, photo_dim=3).features(opened(shop).present).shape == (13, 3)
    few = opened(shop)
    assert few.features(few.present).shape == (13, 9), "ten pictures less their mean"
    assert any("64 features were asked for, but 10 pictures" in text for text in said())
    assert any("pixels sees the colours" in text and "photo_model" in text for text in said())


def test_hidden_pictures_have_no_influence(shop):
    source = opened(shop, photo_dim=3)
    observed = source.present.copy()
    observed[[2, 5]] = False
    before = source.features(observed)
    revealed = source.features(observed, reveal=True)
    assert not before[[2, 5]].any() and revealed[[2, 5]].any(axis=1).all()
    np.testing.assert_array_equal(revealed[observed], before[observed])
    Image.effect_noise((50, 50), 90).save(shop.folder / "photos" / "2.png")
    changed = opened(shop, photo_dim=3)
    np.testing.assert_array_equal(changed.features(observed), before)
    assert not np.array_equal(changed.features(observed, reveal=True)[2], revealed[2])
    Image.effect_noise((50, 50), 90).save(shop.folder / "photos" / "1.png")  # a control
    assert not np.array_equal(opened(shop, photo_dim=3).features(observed), before)


def test_equal_pictures_have_no_direction(shop):
    for path in (shop.folder / "photos").iterdir():
        block().save(path)
    source = opened(shop, photo_dim=2)
    assert np.isfinite(source.features(source.present)).all()


def test_pieces_follow_the_content_alone(shop):
    before = list(opened(shop).pieces())
    assert len(before) == 10
    path = shop.folder / "photos" / "3.png"
    path.rename(path.with_suffix(".gif"))  # Pillow reads the content, not the name
    assert list(opened(shop, photo_dim=5, photo_unreadable="error").pieces()) == before
    path.with_suffix(".gif").write_bytes(content_of(block(GREEN)))
    changed = list(opened(shop).pieces())
    assert [one == other for one, other in zip(before, changed)] == [True] * 2 + [False] + [
        True
    ] * 7


def test_the_encoder_names_what_decides_the_features(shop):
    plain = opened(shop)
    assert plain.encoder == opened(shop, photo_encoder="pixels", device="cuda").encoder
    assert plain.encoder != opened(shop, photo_dim=5).encoder


# ------------------------------------------------------------------------------------- the cache


@pytest.fixture
def cached(shop, tmp_path):
    return {"encoder_cache": True, "checkpoint_dir": str(tmp_path / "saved")}


def cache_file(settings):
    (file,) = Path(settings["checkpoint_dir"], "encoded").glob("*.safetensors")
    return file


def test_only_new_pictures_are_encoded(shop, cached, said, monkeypatch):
    encoded_pictures = []
    colours = pictures.colours
    counted = lambda image: encoded_pictures.append(1) or colours(image)  # noqa: E731
    monkeypatch.setattr(pictures, "colours", counted)
    first = opened(shop, **cached)
    features = first.features(first.present)
    assert len(encoded_pictures) == 10
    second = opened(shop, **cached)
    np.testing.assert_array_equal(second.features(second.present), features)
    assert len(encoded_pictures) == 10
    block(BLUE).save(shop.folder / "photos" / "11.png")
    assert opened(shop, **cached).present.sum() == 11
    assert len(encoded_pictures) == 11
    found = [text for text in said() if "pictures are new" in text]
    assert [text.split(" ")[1:4] for text in found] == [
        ["10", "of", "10"],
        ["0", "of", "10"],
        ["1", "of", "11"],
    ]


def test_no_cache_no_file(shop, cached):
    opened(shop, **{**cached, "encoder_cache": False})
    opened(shop)
    assert not Path(cached["checkpoint_dir"]).exists()


@pytest.mark.parametrize("damage", ["cut", "empty", "text"])
def test_a_damaged_cache_is_made_again(shop, cached, said, damage):
    before = opened(shop, **cached)
    path = cache_file(cached)
    content = path.read_bytes()
    path.write_bytes({"cut": content[: len(content) // 2], "empty": b"", "text": b"x" * 99}[damage])
    after = opened(shop, **cached)
    np.testing.assert_array_equal(after.features(after.present), before.features(before.present))
    assert any("cannot be read" in text and "encoded again" in text for text in said())
    assert path.read_bytes() == content


def test_two_writers_keep_each_others_rows(tmp_path):
    path = tmp_path / "rows.safetensors"
    one, other = encoded.EncodedRows(path), encoded.EncodedRows(path)
    keys = [bytes([number]) * encoded.KEY_SIZE for number in range(2)]
    assert keys[0] not in one and keys[1] not in other
    one.add({keys[0]: np.ones(3, dtype=np.float32)})
    other.add({keys[1]: np.zeros(3, dtype=np.float32)})
    found = encoded.EncodedRows(path).of([keys[1], keys[0]])
    np.testing.assert_array_equal(found, [[0, 0, 0], [1, 1, 1]])


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path, said):
    (tmp_path / "file").write_text("")
    rows = encoded.EncodedRows(tmp_path / "file" / "rows.safetensors")
    key = b"k" * encoded.KEY_SIZE
    rows.add({key: np.ones(2, dtype=np.float32)})
    assert key in rows
    assert any("encodes again" in text for text in said())


def test_pictures_of_few_kinds_give_no_features_of_rounding_errors(shop, said):
    for number in range(1, 11):
        size = (40, 30 if number % 2 else 20)
        block(RED, (GREEN, BLUE, RED)[number % 3], size).save(
            shop.folder / "photos" / f"{number}.png"
        )
    source = opened(shop, photo_scale="standard")
    rows = source.features(source.present)[source.present]
    assert rows.shape[1] == 2, "three kinds of pictures, less their mean"
    assert (rows.std(axis=0) > 1e-3 * np.abs(rows).max()).all()
    assert [line for line in said() if "64 features were asked for" in line and "allow 2" in line]


def test_equal_pictures_give_a_zero(shop):
    for number in range(1, 11):
        block().save(shop.folder / "photos" / f"{number}.png")
    source = opened(shop)
    np.testing.assert_allclose(source.features(source.present), np.zeros((13, 1)), atol=1e-6)
