package boltdb

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/fnv"
	"io"
	"syscall"
)

// The layout of bbolt's files, version 2, in the byte order of the machine
// (bbolt internal/common: meta.go, page.go, bucket.go).
const (
	magic         = 0xED0CDAED
	layoutVersion = 2

	headerSize  = 16 // of a page: id u64, flags u16, count u16, overflow u32
	elementSize = 16 // branch: pos, ksize u32, page u64; leaf: flags, pos, ksize, vsize u32
	bucketSize  = 16 // root page u64, sequence u64; root 0: an inline leaf page follows
	metaSize    = 64

	branchPage   = 0x01
	leafPage     = 0x02
	freelistPage = 0x10

	bucketLeaf = 0x01       // flag of a leaf element that holds a bucket
	manyFree   = 0xFFFF     // count of a freelist whose length is its first element
	noFreelist = ^uint64(0) // written under NoFreelistSync
	maxDepth   = 32         // of pages; three levels hold 50 MB
	maxRun     = 64 << 20   // bytes of one page with its overflow; no record comes near
	minPage    = 1 << 10    // the page sizes that bbolt looks for
	maxPage    = minPage << 14
)

// meta is what a meta page says.
type meta struct {
	pageSize uint64
	root     uint64 // page of the root bucket
	freelist uint64
	pages    uint64 // number of pages in use: all ids are below
	txid     uint64
}

// readMeta reads the meta page at an offset. A page that is none gives ok
// false; err is a failure to read.
func readMeta(r io.ReaderAt, at int64) (m meta, ok bool, err error) {
	var b [headerSize + metaSize]byte
	if _, err := r.ReadAt(b[:], at); err != nil {
		return m, false, err
	}
	f := b[headerSize:]
	e := binary.NativeEndian
	sum := fnv.New64a()
	sum.Write(f[:56])
	m = meta{pageSize: uint64(e.Uint32(f[8:])), root: e.Uint64(f[16:]), freelist: e.Uint64(f[32:]), pages: e.Uint64(f[40:]), txid: e.Uint64(f[48:])}
	ok = e.Uint32(f) == magic && e.Uint32(f[4:]) == layoutVersion && e.Uint64(f[56:]) == sum.Sum64() &&
		m.pageSize >= minPage && m.pageSize <= maxPage && m.pageSize&(m.pageSize-1) == 0
	return m, ok, nil
}

// newestMeta chooses as bbolt does: the valid one with the higher transaction.
func newestMeta(r io.ReaderAt) (meta, error) {
	first, ok, err := readMeta(r, 0)
	if err != nil {
		return meta{}, err
	}
	if ok {
		second, ok, err := readMeta(r, int64(first.pageSize))
		if err == nil && ok && second.pageSize == first.pageSize && second.txid > first.txid {
			return second, nil
		}
		return first, nil
	}
	for size := int64(minPage); size <= maxPage; size *= 2 {
		if m, ok, err := readMeta(r, size); err == nil && ok && int64(m.pageSize) == size {
			return m, nil
		}
	}
	return meta{}, damaged("no valid meta page: not a bbolt file, or its start was overwritten")
}

// check walks all pages that the newest transaction uses, and returns a
// *damage where bbolt could panic, fault, run in circles or overwrite live
// pages, or the error of reading. It looks at the structure; a changed byte in
// a key or value is the decoder's to notice.
func check(r io.ReaderAt, size int64) error {
	err := checkPages(r, size)
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.EIO) {
		return damaged("it cannot be read to its end: %v", err)
	}
	return err
}

func checkPages(r io.ReaderAt, size int64) error {
	m, err := newestMeta(r)
	if err != nil {
		return err
	}
	if m.pages > uint64(size)/m.pageSize {
		return damaged("truncated: %d bytes, should hold %d pages of %d", size, m.pages, m.pageSize)
	}
	w := &walk{r: r, meta: m, used: make([]uint64, m.pages/64+1)}
	if err := w.tree(m.root, 0); err != nil {
		return err
	}
	return w.freelist()
}

// walk is one pass over a file.
type walk struct {
	r    io.ReaderAt
	meta meta
	used []uint64         // a bit for each page seen
	bufs [maxDepth][]byte // the page being read at each depth
}

// use marks a page, which must not have been seen before.
func (w *walk) use(id uint64) error {
	if id < 2 || id >= w.meta.pages { // 0 and 1 are the meta pages
		return damaged("page %d is outside of the file's %d pages", id, w.meta.pages)
	}
	if w.used[id/64]&(1<<(id%64)) != 0 {
		return damaged("page %d is used twice", id)
	}
	w.used[id/64] |= 1 << (id % 64)
	return nil
}

// page reads a page with its overflow into the buffer of a depth.
func (w *walk) page(id uint64, depth int) ([]byte, error) {
	if err := w.use(id); err != nil {
		return nil, err
	}
	size := w.meta.pageSize
	b := w.bufs[depth]
	if uint64(len(b)) < size {
		b = make([]byte, size)
	}
	if _, err := w.r.ReadAt(b[:size], int64(id*size)); err != nil {
		return nil, err
	}
	e := binary.NativeEndian
	overflow := uint64(e.Uint32(b[12:]))
	if e.Uint64(b) != id {
		return nil, damaged("page %d says that it is page %d", id, e.Uint64(b))
	}
	if overflow >= maxRun/size {
		return nil, damaged("page %d has %d overflow pages", id, overflow)
	}
	for i := range overflow {
		if err := w.use(id + 1 + i); err != nil {
			return nil, err
		}
	}
	if all := (overflow + 1) * size; all > size {
		if uint64(len(b)) < all {
			b = append(b[:size], make([]byte, all-size)...)
		}
		if _, err := w.r.ReadAt(b[size:all], int64((id+1)*size)); err != nil {
			return nil, err
		}
	}
	w.bufs[depth] = b
	return b[:(overflow+1)*size], nil
}

// tree checks a page of a bucket and all below.
func (w *walk) tree(id uint64, depth int) error {
	if depth == maxDepth {
		return damaged("pages are nested more than %d deep", maxDepth)
	}
	p, err := w.page(id, depth)
	if err != nil {
		return err
	}
	switch flags := binary.NativeEndian.Uint16(p[8:]); flags {
	case branchPage:
		return w.branch(id, p, depth)
	case leafPage:
		return w.leaf(id, p, depth, false)
	default:
		return damaged("page %d has type %#x where a branch or a leaf belongs", id, flags)
	}
}

// branch checks a page of keys and child pages.
func (w *walk) branch(id uint64, p []byte, depth int) error {
	e := binary.NativeEndian
	count := int(e.Uint16(p[10:]))
	if count == 0 {
		return damaged("branch page %d is empty", id)
	}
	var last []byte
	for i := range count {
		at := headerSize + i*elementSize
		if at+elementSize > len(p) {
			return damaged("branch page %d has %d elements, more than fit", id, count)
		}
		el := p[at:]
		key, ok := slice(p, count, uint64(at)+uint64(e.Uint32(el)), uint64(e.Uint32(el[4:])))
		if !ok || len(key) == 0 || i > 0 && bytes.Compare(last, key) >= 0 {
			return damaged("branch page %d has a bad key at element %d", id, i)
		}
		last = key
		if err := w.tree(e.Uint64(el[8:]), depth+1); err != nil {
			return err
		}
	}
	return nil
}

// leaf checks a page of keys and values, some of which are buckets.
func (w *walk) leaf(id uint64, p []byte, depth int, inline bool) error {
	e := binary.NativeEndian
	count := int(e.Uint16(p[10:]))
	var last []byte
	for i := range count {
		at := headerSize + i*elementSize
		if at+elementSize > len(p) {
			return damaged("leaf page %d has %d elements, more than fit", id, count)
		}
		el := p[at:]
		flags, ksize, vsize := e.Uint32(el), uint64(e.Uint32(el[8:])), uint64(e.Uint32(el[12:]))
		data, ok := slice(p, count, uint64(at)+uint64(e.Uint32(el[4:])), ksize+vsize)
		if !ok || ksize == 0 || i > 0 && bytes.Compare(last, data[:ksize]) >= 0 {
			return damaged("leaf page %d has a bad record at element %d", id, i)
		}
		last = data[:ksize]
		switch {
		case flags == 0:
		case flags == bucketLeaf && !inline:
			if err := w.bucket(id, data[ksize:], depth); err != nil {
				return err
			}
		default:
			return damaged("leaf page %d has flags %#x at element %d", id, flags, i)
		}
	}
	return nil
}

// bucket checks the value of a bucket: its root page, or a leaf page within.
func (w *walk) bucket(id uint64, v []byte, depth int) error {
	if len(v) < bucketSize {
		return damaged("leaf page %d has a bucket of %d bytes", id, len(v))
	}
	e := binary.NativeEndian
	if root := e.Uint64(v); root != 0 {
		return w.tree(root, depth+1)
	}
	p := v[bucketSize:]
	if len(p) < headerSize || e.Uint16(p[8:]) != leafPage {
		return damaged("leaf page %d has a bad inline bucket", id)
	}
	return w.leaf(id, p, depth, true)
}

// slice returns n bytes of page p from offset from, which must lie behind its
// count elements.
func slice(p []byte, count int, from, n uint64) ([]byte, bool) {
	if from < uint64(headerSize+count*elementSize) || n > uint64(len(p)) || from > uint64(len(p))-n {
		return nil, false
	}
	return p[from : from+n], true
}

// freelist checks the list of pages that the next transactions overwrite.
func (w *walk) freelist() error {
	id := w.meta.freelist
	if id == noFreelist {
		return nil
	}
	p, err := w.page(id, 0)
	if err != nil {
		return err
	}
	e := binary.NativeEndian
	if flags := e.Uint16(p[8:]); flags != freelistPage {
		return damaged("page %d has type %#x where the freelist belongs", id, flags)
	}
	count, list := uint64(e.Uint16(p[10:])), p[headerSize:]
	if count == manyFree {
		count, list = e.Uint64(list), list[8:]
	}
	if count > uint64(len(list)/8) {
		return damaged("the freelist has %d elements, more than fit", count)
	}
	for i := range count {
		if err := w.use(e.Uint64(list[8*i:])); err != nil {
			return damaged("freelist: %v", err)
		}
	}
	return nil
}
