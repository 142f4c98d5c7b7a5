package setup

import (
	"embed"
	"io/fs"
	"path"

	"postseal/cmd/postseal/internal/host"
	"postseal/cmd/postseal/internal/setup/edit"
)

// Packaged is where a package puts the files that Exim and Sendmail include.
const Packaged = "/usr/share/postseal"

// ownFiles is where setup does without a package: everybody may read there, since Exim
// does not as root.
const ownFiles = "/usr/local/share/postseal"

// Include finds the folder of the files that the mail server includes, of which probe is
// one. If no package has brought them, the plan does.
func (p *Plan) Include(s *host.System, probe string, files embed.FS) (folder string, err error) {
	folder = path.Join(Packaged, p.MTA)
	installed := s.Exists(path.Join(folder, probe))
	if !installed {
		folder = path.Join(ownFiles, p.MTA)
	}
	entries, err := fs.ReadDir(files, ".")
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		c, err := edit.Of(s, path.Join(folder, e.Name()))
		if err != nil {
			return "", err
		}
		if c.After, err = files.ReadFile(e.Name()); err != nil {
			return "", err
		}
		c.Copy = "contrib/" + p.MTA + "/" + e.Name()
		switch {
		case !installed:
			p.Change(c)
		case string(c.Before) != string(c.After):
			p.Warn("%s is of another version of postseal than this program", c.Path)
		}
	}
	return folder, nil
}
