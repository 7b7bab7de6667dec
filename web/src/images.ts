// A picture's pixels, as fkp/images.py reads them: upright, on white, colour profiles not applied.

import type { Picture } from "./pixels";

const MAX_PIXELS = 120_000_000;
const STRIP = 4_000_000; // pixels that are copied at once: some browsers know no canvas for a large photo

/** How a browser is to decode; its defaults change colours and lose what is half transparent. */
export const DECODED: ImageBitmapOptions = { colorSpaceConversion: "none", premultiplyAlpha: "none", imageOrientation: "from-image" };

/** The pixels of a file, a frame, or a picture in memory. Throws an Error with a sentence for what is no picture. */
export async function read(source: Blob | ImageBitmap | ImageData): Promise<Picture> {
  let bitmap: ImageBitmap;
  try {
    bitmap = source instanceof ImageBitmap ? source : await createImageBitmap(source, DECODED);
  } catch {
    throw new Error("is no picture that this browser can read");
  }
  const { width, height } = bitmap;
  if (width * height > MAX_PIXELS) {
    bitmap.close();
    throw new Error(`has ${Math.round((width * height) / 1e6)} million pixels, the most are ${MAX_PIXELS / 1e6} million`);
  }
  const rows = Math.min(height, Math.max(1, Math.floor(STRIP / width))), data = new Uint8Array(3 * width * height);
  const canvas = new OffscreenCanvas(width, rows), pen = canvas.getContext("2d", { willReadFrequently: true })!;
  for (let top = 0, to = 0; top < height; top += rows) {
    pen.fillStyle = "#fff";
    pen.fillRect(0, 0, width, rows);
    pen.drawImage(bitmap, 0, -top);
    const strip = pen.getImageData(0, 0, width, Math.min(rows, height - top)).data;
    for (let at = 0; at < strip.length; at++) if (at % 4 < 3) data[to++] = strip[at]!;
  }
  bitmap.close();
  return { width, height, data };
}
