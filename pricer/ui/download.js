// Browser side of pricer/ui/download.py; the body of a function of (element, trigger, props, server, upload, watch).
watch("value", () => {
  if (!props.value) return;
  const { name, text } = JSON.parse(props.value);
  // The mark tells spreadsheets that it is UTF-8.
  const blob = new Blob(["\ufeff", text], { type: "text/csv;charset=utf-8" });
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
});
