// Renders conversations by a template the way Ollama does: {"template", "conversations"} on stdin, texts on stdout.
package main

import (
	"encoding/json"
	"os"
	"strings"
	"text/template"
)

type message struct{ Role, Content string }

type request struct {
	Template      string
	Conversations [][]message
}

// values gives a template .System, all system messages in one, and .Messages, where turns of one role in a row are one.
func values(conversation []message) map[string]any {
	var system []string
	var turns []*message
	for i := range conversation {
		turn := conversation[i]
		if turn.Role == "system" {
			system = append(system, turn.Content)
		}
		if last := len(turns) - 1; last >= 0 && turns[last].Role == turn.Role {
			turns[last].Content += "\n\n" + turn.Content
		} else {
			turns = append(turns, &turn)
		}
	}
	return map[string]any{"System": strings.Join(system, "\n\n"), "Messages": turns, "Response": ""}
}

func main() {
	var given request
	if err := json.NewDecoder(os.Stdin).Decode(&given); err != nil {
		panic(err)
	}
	parsed, err := template.New("").Option("missingkey=zero").Parse(given.Template)
	if err != nil {
		os.Stderr.WriteString(err.Error())
		os.Exit(1)
	}
	texts := []string{}
	for _, conversation := range given.Conversations {
		var text strings.Builder
		if err := parsed.Execute(&text, values(conversation)); err != nil {
			os.Stderr.WriteString(err.Error())
			os.Exit(1)
		}
		texts = append(texts, text.String())
	}
	if err := json.NewEncoder(os.Stdout).Encode(texts); err != nil {
		panic(err)
	}
}
