// A series without pictures, or one that cannot be shown, has no thumbnail: its empty frame is left out.

for (const image of document.querySelectorAll("img")) {
  const leaveOut = () => {
    image.hidden = true;
  };
  if (image.complete && !image.naturalWidth) {
    leaveOut();
  } else {
    image.addEventListener("error", leaveOut);
  }
}
