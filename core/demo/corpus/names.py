"""Names and values that passages are about; most are made of syllables and stand for nobody."""

from __future__ import annotations

from core.demo.corpus.source import Source

_FEMALE = ["Mira", "Lena", "Greta", "Tessa", "Ines", "Anna", "Clara", "Nora", "Ida", "Ella", "Maja", "Sofia", "Lucia", "Elena", "Marta", "Eva", "Julia", "Hanna", "Olga", "Vera", "Ruth", "Alma", "Dora", "Edith", "Flora", "Ingrid", "Karin", "Lydia", "Mabel", "Nadia", "Petra", "Rosa", "Stella", "Thea", "Ursula", "Wanda", "Yara", "Zoe", "Amina", "Farida", "Leila", "Priya", "Mei", "Yuki", "Aiko", "Chloe", "Daphne", "Esther", "Fiona", "Gwen", "Helena", "Iris", "Joan", "Kira", "Laura", "Monica", "Naomi", "Olivia", "Paula", "Rita", "Sara", "Tilda", "Violet", "Selma"]
_MALE = ["Jonas", "Ravi", "Tomas", "Peter", "Karl", "Erik", "Oskar", "Felix", "Hugo", "Ivan", "Jakob", "Leon", "Marco", "Nils", "Otto", "Paul", "Robert", "Simon", "Theo", "Viktor", "Walter", "Adam", "Boris", "Carlos", "David", "Emil", "Frank", "Georg", "Henry", "Igor", "Juan", "Kofi", "Lars", "Martin", "Noah", "Omar", "Pablo", "Quentin", "Rafael", "Samir", "Tariq", "Umar", "Vincent", "Wei", "Yusuf", "Zeno", "Ahmed", "Bruno", "Cyril", "Dario", "Edgar", "Finn", "Gustav", "Harald", "Ismail", "Joel", "Kenji", "Luca", "Milan", "Niko", "Oliver", "Philip", "Rufus", "Stefan"]
_STARTS = ["Ar", "Bel", "Bran", "Cal", "Car", "Dal", "Dor", "El", "Em", "Fal", "Fen", "Gar", "Gol", "Hal", "Har", "Hol", "Is", "Jor", "Kal", "Kel", "Lan", "Lor", "Mar", "Mel", "Mor", "Nar", "Nor", "Ol", "Or", "Pel", "Per", "Pol", "Quin", "Ral", "Ren", "Ros", "Sal", "Sel", "Sol", "Tal", "Tar", "Tem", "Tor", "Ul", "Val", "Ver", "Vol", "Wal", "Wen", "Wes", "Yar", "Zan", "Bro", "Cra", "Dre", "Fro", "Gri", "Kro", "Pra", "Sta", "Ste", "Tri", "Vra", "Che", "Sha", "Thi", "Bu", "Co", "Du", "Fi", "Ga", "Hi", "Jo", "Ki", "Lu", "Mo", "Ni", "Pa", "Ra", "Su", "To", "Vi", "Wo", "Ze"]
_MIDDLES = ["a", "e", "i", "o", "u", "an", "en", "in", "on", "ar", "er", "ir", "or", "al", "el", "il", "ol", "da", "de", "di", "do", "la", "le", "li", "lo", "ma", "me", "na", "ne", "ra", "re", "ri", "sa", "se", "ta", "te", "ti", "va", "vi", "ka", "ki", "go", "ni", "bri", "tra", "sta", "lo", "bo", "du", "fa", "hu", "ju", "mi", "pu"]
_TOWN_ENDS = ["ton", "ford", "bury", "field", "mouth", "ham", "stead", "wick", "burg", "dale", "port", "bridge", "vik", "sund", "berg", "holm", "minster", "cliff", "wood", "haven", "ley", "by", "gate", "marsh", "well", "hurst", "side", "worth", "more", "na", "dor", "ro", "ia"]
_NAME_ENDS = ["son", "sen", "berg", "man", "er", "in", "ski", "ova", "ez", "ard", "ell", "ow", "man", "feld", "ing", "quist", "stein", "aro", "ini", "eau", "ley", "den", "der", "lund", "wirth", "dan", "rick", "ton", "kins", "mer", "vic", "tos", "ulu", "ima", "oto"]
_FIRM_ENDS = ["ex", "ix", "on", "ia", "tek", "or", "is", "um", "al", "ent", "co", "va", "ro", "do", "lux", "mex", "bit", "sys", "pro", "lab", "max"]
_LANDS = ["Castrona", "Velmark", "Ostrania", "Lurien", "Merovia", "Pelland", "Tarsia", "Norvania", "Kestria", "Aldovia"]
_STREETS = ["Harbour", "Market", "Mill", "Church", "Station", "Park", "River", "Castle", "Garden", "Bridge", "Forest", "School", "Tower", "Orchard", "Baker", "Hill", "Lake", "Chapel", "Meadow", "Linden", "King", "Queen", "North", "South", "Abbey", "Quarry", "Copper", "Silver"]
_ADJECTIVES = ["Copper", "Silver", "Golden", "Blue", "Green", "Red", "White", "Black", "Old", "Little", "Lucky", "Happy", "Quiet", "Hidden", "Lazy", "Merry", "Crooked", "Wild", "Brave", "Hungry", "Sleepy", "Velvet", "Wooden", "Iron", "Crystal", "Dancing", "Flying", "Rusty", "Purple", "Amber"]
_NOUNS = ["Kettle", "Lantern", "Anchor", "Fox", "Owl", "Barrel", "Compass", "Rose", "Swan", "Spoon", "Clock", "Bear", "Whale", "Violin", "Apple", "Oak", "Star", "Crown", "Feather", "Bell", "Wheel", "Heron", "Rabbit", "Key", "Button", "Mirror", "Ladder", "Candle", "Boat", "Pear", "Turtle"]
_FIELDS = ["bridge", "harbour", "railway", "forest", "school", "hospital", "museum", "garden", "weather", "ship", "road", "theatre", "hotel", "factory", "airport", "library", "river", "wine", "bicycle", "piano", "computer", "newspaper", "sports", "fire", "water", "energy", "glass", "clock", "dairy", "mountain", "textile", "furniture", "shoe", "bakery", "radio", "film", "opera", "tax", "insurance", "travel"]
_ROLES = ["inspector", "manager", "technician", "guide", "designer", "planner", "engineer", "photographer", "consultant", "driver", "trainer", "painter", "teacher", "officer", "mechanic", "researcher", "builder", "dealer", "reporter", "nurse"]
_TRADES = ["teacher", "nurse", "baker", "carpenter", "lawyer", "dentist", "gardener", "plumber", "architect", "librarian", "tailor", "pilot", "butcher", "cook", "farmer", "surgeon", "translator", "electrician", "watchmaker", "sculptor", "postman", "biologist", "chemist", "florist", "potter", "optician", "pharmacist", "journalist", "programmer", "accountant"]
_HOBBIES = ["rock climbing", "chess", "painting", "swimming", "baking bread", "playing the cello", "watching birds", "knitting", "sailing", "running", "photography", "gardening", "collecting stamps", "dancing", "fishing", "cycling", "pottery", "skiing", "reading novels", "woodwork", "yoga", "singing in a choir", "playing cards", "hiking", "archery", "restoring old radios", "making cheese", "flying kites", "growing roses", "juggling", "playing the piano", "writing poems", "solving puzzles", "rowing", "keeping bees", "model trains", "table tennis", "diving", "surfing", "drawing maps", "playing the guitar", "collecting shells", "repairing clocks", "origami", "horse riding", "learning languages", "brewing beer", "skating", "playing the drums", "visiting museums", "folk dancing"]
_ANIMALS = ["parrot", "dog", "cat", "rabbit", "hamster", "tortoise", "canary", "goldfish", "pony", "goat", "ferret", "hedgehog", "duck", "lizard", "snake", "donkey", "hen", "mouse", "budgie", "sheep", "greyhound", "terrier", "spaniel", "poodle"]
_PETS = ["Biscuit", "Pepper", "Luna", "Rusty", "Coco", "Daisy", "Shadow", "Muffin", "Ginger", "Bella", "Nugget", "Oscar", "Pickle", "Domino", "Ziggy", "Hazel", "Jasper", "Mango", "Noodle", "Olive", "Pixie", "Rocket", "Sable", "Toffee", "Waffle", "Bramble", "Clover", "Dusty", "Echo", "Fidget"]
_FOODS = ["plum cake", "onion soup", "apple strudel", "fish pie", "lemon tart", "goulash", "cheese toast", "carrot cake", "waffles", "lentil stew", "almond biscuits", "mushroom risotto", "cherry pie", "pea soup", "nut bread", "vegetable curry", "poppy seed cake", "dumplings", "pumpkin soup", "chocolate cake", "spinach quiche", "ginger tea", "rhubarb crumble", "noodle soup", "potato pancakes", "baked apples", "honey cake", "bean salad", "pear tart", "cinnamon rolls", "tomato soup", "garlic bread", "rice pudding", "walnut cake", "crab soup", "fig jam", "pepper stew", "herb omelette"]
_PRODUCTS = ["bicycles", "lamps", "chairs", "toys", "clocks", "boats", "tents", "shoes", "batteries", "solar panels", "violins", "pumps", "maps", "coffee machines", "backpacks", "umbrellas", "headphones", "bricks", "cameras", "drones", "mattresses", "pianos", "sails", "bread ovens", "water filters", "hearing aids", "road signs", "paper bags", "ropes", "lifts", "printers", "candles", "soap", "skis", "gloves", "wheelchairs", "microscopes", "glasses", "kitchen knives", "garden tools", "radios", "windows"]
_KINDS = ["electric", "small", "wooden", "cheap", "luxury", "modern", "light", "folding", "special", "handmade"]
_MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"]
_DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
_COLOURS = ["red", "blue", "green", "yellow", "black", "white", "orange", "purple", "grey", "brown", "silver", "golden", "pink"]


class Names:
    """Draws names and values for one source."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def _syllables(self, ends: list[str]) -> str:
        choice = self.source.choice
        middle = choice(_MIDDLES) if self.source.chance(0.6) else ""
        return choice(_STARTS) + middle + choice(ends)

    def woman(self) -> str:
        """A first name."""
        return self._first(_FEMALE, ["a", "ia", "in", "elle", "is"])

    def man(self) -> str:
        """A first name."""
        return self._first(_MALE, ["o", "us", "el", "or", "an"])

    def _first(self, names: list[str], ends: list[str]) -> str:
        if self.source.chance(0.25):
            return self.source.value(lambda: self._syllables(ends))
        return self.source.of(names)

    def first(self) -> str:
        """A first name of either kind."""
        return self.woman() if self.source.chance(0.5) else self.man()

    def surname(self) -> str:
        return self.source.value(lambda: self._syllables(_NAME_ENDS))

    def person(self) -> str:
        """First name and surname."""
        return f"{self.first()} {self.surname()}"

    def town(self) -> str:
        return self.source.value(lambda: self._syllables(_TOWN_ENDS))

    def land(self) -> str:
        if self.source.chance(0.4):
            return self.source.choice(_LANDS)
        return self.source.value(lambda: self._syllables(["ia", "land", "mark", "ania", "stan"]))

    def hills(self) -> str:
        kind = self.source.choice(["Hills", "Mountains", "Forest", "Highlands", "Moors"])
        word = self.source.choice(_ADJECTIVES) if self.source.chance(0.5) else self.town()
        return f"the {word} {kind}"

    def firm(self) -> str:
        return self.source.value(lambda: self._syllables(_FIRM_ENDS))

    def street(self) -> str:
        return self.source.value(
            lambda: (
                f"{self.source.choice(_STREETS)} {self.source.choice(['Street', 'Road', 'Lane', 'Square'])}"
            )
        )

    def sign(self) -> str:
        """Name of an inn, a book or a ship: ``the Copper Kettle`` without its article."""
        return self.source.value(
            lambda: f"{self.source.choice(_ADJECTIVES)} {self.source.choice(_NOUNS)}"
        )

    def trade(self) -> str:
        """A profession."""
        if self.source.chance(0.35):
            return self.source.of(_TRADES)
        return self.source.value(
            lambda: f"{self.source.choice(_FIELDS)} {self.source.choice(_ROLES)}"
        )

    def hobby(self) -> str:
        return self.source.of(_HOBBIES)

    def animal(self) -> str:
        return self.source.choice(_ANIMALS)

    def pet(self) -> str:
        return self.source.of(_PETS)

    def food(self) -> str:
        return self.source.of(_FOODS)

    def product(self) -> str:
        def make() -> str:
            kind = f"{self.source.choice(_KINDS)} " if self.source.chance(0.5) else ""
            return kind + self.source.choice(_PRODUCTS)

        return self.source.value(make)

    def model(self) -> str:
        """Name of a product, ``Swift 7``."""
        return self.source.value(
            lambda: f"{self._syllables(_FIRM_ENDS)} {self.source.random.randint(1, 99)}"
        )

    def year(self) -> str:
        return str(self.source.random.randint(1820, 2024))

    def date(self) -> str:
        return f"{self.source.random.randint(1, 28)} {self.source.choice(_MONTHS)}"

    def day(self) -> str:
        return self.source.choice(_DAYS)

    def morning(self) -> str:
        return self.source.choice(["7 am", "7.30 am", "8 am", "8.30 am", "9 am", "9.30 am", "10 am"])

    def evening(self) -> str:
        return self.source.choice(["4 pm", "5 pm", "5.30 pm", "6 pm", "6.30 pm", "7 pm", "8 pm", "9 pm"])

    def price(self) -> str:
        return f"{self.source.random.randint(2, 95)} euros"

    def number(self, low: int, high: int) -> str:
        step = 10 if high > 200 else 1
        return str(self.source.random.randrange(low, high, step))

    def colour(self) -> str:
        return self.source.choice(_COLOURS)

    def phone(self) -> str:
        digits = self.source.random
        return f"0{digits.randint(100, 999)} {digits.randint(1000, 9999)}"

    def hundreds(self) -> str:
        return self.number(120, 990)

    def kilometres(self) -> str:
        return f"{self.number(40, 990)} kilometres"

    def metres(self) -> str:
        return f"{self.source.random.randint(20, 180)} metres"

    def centimetres(self) -> str:
        return f"{self.source.random.randint(5, 99)} centimetres"

    def lifetime(self) -> str:
        return f"{self.source.random.randint(3, 60)} years"

    def platform(self) -> str:
        return f"platform {self.source.random.randint(1, 24)}"

    def room(self) -> str:
        return f"room {self.source.random.randint(1, 99)}"

    def material(self) -> str:
        return self.source.choice(_MATERIALS)

    def fish(self) -> str:
        return self.source.choice(["trout", "salmon", "pike", "carp", "eels", "perch"])

    def venue(self) -> str:
        if self.source.chance(0.5):
            return f"the {self.sign()}"
        return self.source.value(
            lambda: f"the {self.source.choice(_STREETS)} {self.source.choice(_HALLS)}"
        )

    def subject(self) -> str:
        return self.source.of(_SUBJECTS)

    def species(self) -> str:
        kind = self.source.choice(["fox", "owl", "frog", "lizard", "mouse", "toad", "bear", "hare", "beetle", "crab", "otter"])
        return self.source.value(lambda: self._syllables(["a", "o", "el", "in", "or", "ek"])) + f" {kind}"

    def feed(self) -> str:
        return self.source.of(_FEEDS)

    def nest(self) -> str:
        return self.source.of(_NESTS)


_MATERIALS = ["granite", "red brick", "oak", "steel", "marble", "concrete", "limestone", "glass", "sandstone", "copper"]
_HALLS = ["Hall", "House", "Brewery", "Theatre", "Barn", "Mill", "Gardens", "School", "Museum", "Pier", "Arena", "Library"]
_SUBJECTS = ["Spanish", "cooking", "pottery", "yoga", "photography", "drawing", "guitar", "first-aid", "sewing", "chess", "dance", "singing", "French", "Italian", "woodwork", "baking", "gardening", "swimming", "writing", "theatre", "welding", "juggling", "judo", "bridge", "astronomy", "bookbinding", "knitting", "piano", "painting", "climbing"]
_FEEDS = ["berries and leaves", "small fish", "ants", "fallen fruit", "grass and roots", "snails", "beetles and worms", "nuts", "moss", "seeds", "mushrooms", "crabs and mussels", "bamboo", "pine cones", "flies and moths", "bark and buds", "acorns", "river weeds", "eggs", "honey", "spiders", "dry leaves", "sweet roots", "frogs"]
_NESTS = ["hollow trees", "burrows", "caves", "tall grass", "a nest of twigs", "holes in the sand", "dense bushes", "old barns", "rock crevices", "the reeds", "piles of leaves", "the roots of old oaks", "deserted nests", "ice caves", "the crowns of palm trees", "small tunnels", "thorn hedges", "stone walls"]
