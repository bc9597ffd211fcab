// Browser side of pricer/ui/download.py; the body of a function of (element, trigger, props, server, upload, watch).
watch("value", () => {
  if (!props.value) return;
  const { name, text, data } = JSON.parse(props.value);
  const bytes = data === null ? null : Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
  // The mark tells spreadsheets that a text is UTF-8.
  const blob = bytes ? new Blob([bytes]) : new Blob(["\ufeff", text], { type: "text/csv;charset=utf-8" });
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
});
