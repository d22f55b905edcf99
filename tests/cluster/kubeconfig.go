package main

import (
	"encoding/json"
	"os"
	"path/filepath"
)

// kubeconfig writes FILE.kubeconfig, with the certificates inside. It is JSON, which is YAML too.
func (ca *authority) kubeconfig(file, server string) error {
	var contents [3][]byte
	for i, name := range []string{"ca.crt", file + ".crt", file + ".key"} {
		content, err := os.ReadFile(filepath.Join(ca.dir, name))
		if err != nil {
			return err
		}
		contents[i] = content
	}
	type object = map[string]any
	config := object{
		"apiVersion": "v1",
		"kind":       "Config",
		"clusters": []object{{"name": "cluster", "cluster": object{
			"server": server, "certificate-authority-data": contents[0],
		}}},
		"users": []object{{"name": file, "user": object{
			"client-certificate-data": contents[1],
			"client-key-data":         contents[2],
		}}},
		"contexts": []object{{"name": "cluster", "context": object{
			"cluster": "cluster", "user": file,
		}}},
		"current-context": "cluster",
	}
	text, err := json.MarshalIndent(config, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(ca.dir, file+".kubeconfig"), text, 0o600)
}
