import Foundation
import Testing

/// A page of docs/ that lists the keys of JSON objects.
struct JSONPage {
    private let text: String

    init(_ name: String) {
        let folder = URL(filePath: #filePath).deletingLastPathComponent()
        let page = folder.appending(path: "../../docs/\(name).md").standardized
        text = (try? String(contentsOf: page, encoding: .utf8)) ?? ""
    }

    /// The keys of an object and of all in it.
    private static func keys(_ value: Any) -> Set<String> {
        if let list = value as? [Any] {
            return list.reduce(into: []) { $0.formUnion(keys($1)) }
        }
        guard let object = value as? [String: Any] else { return [] }
        return object.reduce(into: []) { keys, entry in
            keys.insert(entry.key)
            keys.formUnion(Self.keys(entry.value))
        }
    }

    /// Every key of the objects, at least so many, stands in the page.
    func expect(_ objects: [any Encodable], least: Int) throws {
        var keys: Set<String> = []
        for object in objects {
            let data = try JSONEncoder().encode(object)
            keys.formUnion(Self.keys(try JSONSerialization.jsonObject(with: data)))
        }
        #expect(keys.count >= least)
        for key in keys.sorted() {
            #expect(text.contains("`\(key)`") || text.contains(".\(key)`"), "\(key)")
        }
    }
}
