() => {
  // Ctrl+Enter anywhere in the product text predicts; Gradio's own way is Shift+Enter.
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && event.target.closest("#product-text")) {
      event.preventDefault();
      document.querySelector("#predict").click();
    }
  });
}
