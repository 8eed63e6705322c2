import click
from flask import Flask
from jinja2 import Template
from rich.console import Console

app = Flask(__name__)
PAGE = Template("hello from {{ name }}")


@app.get("/")
def index():
    return PAGE.render(name="flask")


@click.command()
@click.option("--self-test", is_flag=True)
def main(self_test):
    if self_test:
        with app.test_client() as client:
            text = client.get("/").get_data(as_text=True)
        Console().print(f"self-test: {text}")
        assert text == "hello from flask"
    else:
        app.run(host="0.0.0.0", port=8000)


main()
